"""Sound definitions that have a bit of everything; `bad_definitions` makes bad ones of them."""

DAG = """\
name: orders
kind: dag
input:
  type: object
  required: [order, amount]
  additionalProperties: false
  properties:
    order: {type: string}
    amount: {type: number}
    urgent: {type: boolean}
    customer: {type: object, properties: {city: {type: string}}}
tools:
  - name: pay
    call: shop.tools:pay
    input:
      type: object
      required: [order, amount]
      additionalProperties: false
      properties: {order: {type: string}, amount: {type: number}}
    output:
      type: object
      additionalProperties: false
      properties: {receipt: {type: string}, total: {type: number}}
agents:
  triage:
    model: m
    instructions: Classify.
    output:
      type: object
      additionalProperties: false
      properties:
        category: {enum: [refund, other]}
        good: {type: boolean}
        claims: {type: array, items: {type: string}}
  writer: {model: m, instructions: Write.}
workflows:
  notify:
    name: notify
    input: {type: object, required: [to], additionalProperties: false, properties: {to: {type: string}}}
    nodes:
      send: {tool: mail, with: {to: "${{ input.to }}"}}
    output: {sent: true}
limits:
  calls: {concurrency: 4}
signals:
  paid: {schema: {type: object, additionalProperties: false, properties: {sum: {type: number}}}}
search:
  order: input.order
timeout: 1d
nodes:
  classify:
    agent: triage
    with: {order: "${{ input.order }}"}
    retry: {attempts: 3, delay: 1s, on: [Timeout]}
    timeout: 30s
    limit: calls
  lookup:
    tool: find
    needs: [classify]
    if: input.urgent
    join: none_failed
  charge:
    tool: pay
    with: {order: "${{ input.order }}", amount: "${{ input.amount }}"}
    compensate: {tool: refund}
    catch:
      - {on: [CardExpired], then: escalate}
      - {on: Declined, output: null}
    needs: [classify, lookup]
  escalate: {tool: open_ticket, with: {why: "${{ error.message }}"}}
  hold:
    wait: 5m
  receipt:
    tool: pay
    with: {order: "1", amount: 2.5}
  deposit:
    wait: {signal: paid, timeout: 2d, on_timeout: fail}
  until:
    wait: {until: "2030-01-01T09:00:00+01:00"}
  approve:
    approval: {title: "Refund?", timeout: 2d, on_timeout: reject, form: {type: object}}
  route:
    switch:
      cases:
        - when: input.amount > 100
          then: [large]
        - {when: input.amount > 10, then: middle}
      default: small
  large: {set: {size: 3}}
  middle: {set: {size: 2}}
  small: {set: {size: 1}}
  verify:
    foreach: {items: nodes.classify.output.claims, as: claim, max_parallel: 4}
    agent: writer
    with: {claim: "${{ claim }}"}
  polish:
    loop: {until: loop.last.good, max_iterations: 5, output: "${{ nodes.judge.output }}"}
    do:
      write: {agent: writer, with: {before: "${{ loop.last }}"}}
      judge:
        agent: triage
        with: {text: "${{ nodes.write.output }}"}
  race:
    parallel:
      join: any
      branches:
        left: {agent: writer}
        right:
          do:
            one: {set: 1}
            two: {set: "${{ nodes.one.output }}"}
  joined:
    aggregate: {from: [verify, race], how: collect}
  told:
    workflow: notify
    with: {to: "${{ nodes.charge.output }}"}
  ended:
    if: nodes.approve.output.approved and nodes.receipt.output.total > 3
    fail: {type: Ended, message: "No ${{ nodes.told.status }}"}
  inner:
    statechart:
      initial: idle
      states:
        idle: {after: {1h: over}}
        over: {type: final}
on_failure:
  tell: {tool: mail, with: {why: "${{ error.message }}"}}
output: "${{ nodes.joined.output }}"
"""

CHART = """\
name: door
kind: statechart
agents:
  judge: {model: m, instructions: Judge.}
events:
  open: {type: object, additionalProperties: false, properties: {who: {type: string}}}
  close:
initial: shut
context: {count: 0, who: nobody}
states:
  shut:
    on:
      open:
        target: ajar
        if: context.count < 3
        do: {set: {who: "${{ event.data.who }}"}}
    after: {30m: {target: locked}}
  ajar:
    initial: still
    states:
      still:
        on: {close: moving}
      moving:
        invoke: {id: closer, tool: pull, on_done: shut, on_error: [{target: broken}]}
      past: {type: history, default: still}
  locked:
    entry:
      - {raise: tell}
    on:
      tell: {do: {agent: judge}}
      open: {target: ajar.past}
    always:
      - {if: context.count > 9, target: broken}
    exit: {set: {count: "${{ context.count + 1 }}"}}
  broken:
    type: final
    output: {count: "${{ context.count }}"}
"""

SHARED = """\
agents:
  writer: {model: m, instructions: Write.}
limits:
  calls: {concurrency: 2}
tools: [tools.py]
"""

CHILD = """\
name: billing
input: {type: object, required: [total]}
nodes:
  bill: {tool: bill, with: {total: "${{ input.total }}"}, timeout: 10s}
"""

PARENT = """\
name: parent
include: [shared.yaml]
nodes:
  draft: {agent: writer, limit: calls}
  bill:
    workflow: billing.yaml
    with: {total: 3}
"""
