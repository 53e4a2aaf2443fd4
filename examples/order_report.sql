CREATE TABLE orders (number INTEGER PRIMARY KEY, customer TEXT, total INTEGER);
INSERT INTO orders VALUES (1, 'ann', 20), (2, 'bob', 5), (3, 'ann', 22);
