"""The Python driver: start executions, follow one, get results, list them all.

Run it from the project's folder: `python examples/usage_example.py` (on Ray), or with `--local` (without Ray).
"""

import sys
from pathlib import Path

import perdure
from perdure.testing import Model

HERE = Path(__file__).parent


def main() -> None:
    """Answer three customers."""
    with Model.from_file(HERE / "customer_support.replies.yaml") as model:
        settings = perdure.Settings(openai_base_url=model.base_url)  # leave it out to ask the model of OPENAI_API_KEY
        with perdure.connect(settings, local="--local" in sys.argv) as client:
            question = {"message": "Where is my parcel?", "order": "A-1001"}
            run = client.start(HERE / "customer_support.yaml", question)
            for happened in run.events():
                node = getattr(happened.event, "node", None)
                if node:
                    print(f"{happened.at:%H:%M:%S.%f}  {type(happened.event).__name__:14} {node}")
            print(run.result(timeout=60)["text"])

            more = [{"message": "I want my money back."}, {"message": "Where is my board?", "order": "A-1002"}]
            for each in client.start_many(HERE / "customer_support.yaml", more):
                print(each.id, each.result(timeout=60)["action"])

            for row in client.executions(limit=3):
                print(row["id"], row["workflow"], row["status"])


if __name__ == "__main__":
    main()
