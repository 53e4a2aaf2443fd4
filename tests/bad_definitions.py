"""Bad definitions, made by changing good ones in one place, so that the place is known without asking the loader."""

from collections.abc import Iterator
from dataclasses import dataclass

from good_definitions import CHART, DAG


@dataclass(frozen=True)
class Bad:
    """A definition with one mistake: `old` is changed to `new`, and the mistake stands at `at` within `new`.

    `says` are words of the message and of its mend. `structural`: a JSON Schema of definitions can find it.
    """

    base: str
    old: str
    new: str
    at: str
    says: tuple[str, ...]
    structural: bool = False
    warning: bool = False

    @property
    def name(self) -> str:
        """What pytest shows."""
        return f"{'chart' if self.base is CHART else 'dag'}: {' '.join(self.new.split())[:60]}"

    @property
    def text(self) -> str:
        """The bad text."""
        assert self.base.count(self.old) == 1, self.old
        return self.base.replace(self.old, self.new)

    @property
    def place(self) -> tuple[int, int]:
        """Line and column of the mistake, from 1."""
        before = self.text[: self.base.index(self.old) + self.new.index(self.at)]
        return before.count("\n") + 1, len(before) - before.rfind("\n")


def structural(base: str, old: str, new: str, at: str, *says: str) -> Bad:
    """Return a mistake in the form of a definition."""
    return Bad(base, old, new, at, says, structural=True)


def semantic(base: str, old: str, new: str, at: str, *says: str) -> Bad:
    """Return a mistake in what a well-formed definition means."""
    return Bad(base, old, new, at, says)


def warned(base: str, old: str, new: str, at: str, *says: str) -> Bad:
    """Return what is probably a mistake."""
    return Bad(base, old, new, at, says, warning=True)


FORM = [
    structural(DAG, "kind: dag", "kind: dga", "dga", "'kind' is one of 'dag' or 'statechart'", "did you mean 'dag'?"),
    structural(DAG, "name: orders", "name: my orders", "my orders", "'my orders' is not a name: letters, digits"),
    structural(DAG, "name: orders\n", "", "", "the key 'name' is missing; add it"),
    structural(
        DAG, "    timeout: 30s", "    timeuot: 30s", "timeuot", "unknown key 'timeuot'; did you mean 'timeout'?"
    ),
    structural(DAG, "agents:\n", "agnets:\n", "agnets", "unknown key 'agnets'; did you mean 'agents'?"),
    structural(DAG, "delay: 1s", "dealy: 1s", "dealy", "unknown key 'dealy'; did you mean 'delay'?"),
    structural(DAG, "max_parallel: 4", "parallel: 4", "parallel", "unknown key 'parallel'", "'max_parallel'"),
    structural(DAG, 'title: "Refund?"', 'titel: "Refund?"', "titel", "did you mean 'title'?"),
    structural(
        DAG, "join: none_failed", "join: none_faild", "none_faild", "'join' is one of", "did you mean 'none_failed'?"
    ),
    structural(DAG, "on_timeout: reject", "on_timeout: rejct", "rejct", "did you mean 'reject'?"),
    structural(DAG, "how: collect", "how: colect", "colect", "'collect', 'merge' or 'vote'", "did you mean 'collect'?"),
    structural(
        DAG, "join: any", "join: al", "al", "'join' is one of 'all' or 'any' or a whole number", "did you mean 'all'?"
    ),
    structural(DAG, "attempts: 3", "attempts: 0", "0", "'attempts' is at least 1, not 0"),
    structural(DAG, "attempts: 3", "attempts: many", "many", "'attempts' is a whole number, not 'many'"),
    structural(DAG, "attempts: 3", "attempts: 2.5", "2.5", "'attempts' is a whole number, not 2.5"),
    structural(DAG, "max_iterations: 5", "max_iterations: 0", "0", "'max_iterations' is at least 1, not 0"),
    structural(
        DAG,
        "{until: loop.last.good, max_iterations: 5",
        "{until: loop.last.good",
        "{",
        "a loop without a bound is refused",
        "add 'max_iterations'",
    ),
    structural(DAG, "timeout: 30s", "timeout: 30 seconds", "30 seconds", "not a duration: '30 seconds'; write 500ms"),
    structural(DAG, "timeout: 30s", "timeout: 0", "0", "'timeout' is more than 0, not 0"),
    structural(DAG, "timeout: 1d\n", "timeout: tomorrow\n", "tomorrow", "not a duration: 'tomorrow'; write 500ms, 90s"),
    structural(DAG, "wait: 5m", "wait: 5 minutes", "5 minutes", "not a duration: '5 minutes'; write 500ms, 90s, 5m"),
    structural(DAG, "wait: 5m", "wait: [5m]", "[5m]", "'wait' is a mapping, not a list"),
    structural(DAG, "signal: paid, timeout: 2d", "signal: paid, timeout: 200y", "200y", "not a duration: '200y'"),
    semantic(DAG, "signal: paid, timeout: 2d", "signal: paid, timeout: 6000w", "6000w", "between 0 and 100 years"),
    structural(DAG, 'approval: {title: "Refund?",', "approval: {", "{", "the key 'title' is missing; add it"),
    structural(
        DAG, "  hold:\n    wait: 5m", "  hold:\n    wiat: 5m", "hold", "a node does exactly one thing", "'wait'"
    ),
    structural(DAG, "  hold:\n    wait: 5m", "  hold: 5m", "hold", "a node is a mapping, not '5m'"),
    structural(
        DAG, "  hold:\n", "  hold:\n    set: 1\n", "hold", "does exactly one thing, and this one has 'wait' and 'set'"
    ),
    structural(DAG, "if: input.urgent", "if: 3", "3", "a condition is an expression, or true or false; quote it"),
    structural(
        DAG, "model: m\n    instructions", "model: 3\n    instructions", "3", "'model' is text, not 3; quote it"
    ),
    structural(
        DAG,
        '    with: {order: "${{ input.order }}"}\n',
        "    with: order\n",
        "order",
        "'with' is a mapping, not 'order'",
    ),
    structural(
        DAG,
        "compensate: {tool: refund}",
        "compensate: {tool: refund, agent: writer}",
        "{tool",
        "exactly one of 'agent'",
    ),
    structural(
        DAG,
        "cases:\n        - when: input.amount > 100\n          then: [large]",
        "cases:\n        - when: input.amount > 100",
        "when",
        "the key 'then' is missing",
    ),
    structural(DAG, "then: [large]", "then: []", "[]", "'then' is empty; it has at least 1"),
    structural(
        DAG,
        "  calls: {concurrency: 4}",
        "  calls: {concurrency: lots}",
        "lots",
        "'concurrency' is a whole number, not 'lots'",
    ),
    structural(DAG, "limit: calls", "limit: {nam: calls}", "nam", "unknown key 'nam'; did you mean 'name'?"),
    structural(DAG, "limit: calls", "limit: 5", "5", "'limit' is a list or a mapping or text, not 5; quote it"),
    structural(DAG, "  hold:\n", "  2nd: {set: 1}\n  hold:\n", "2nd", "'2nd' is not a name: letters, digits and '_'"),
    structural(DAG, "{type: Ended, message:", "{type: Ended, mesage:", "mesage", "did you mean 'message'?"),
    structural(CHART, "    initial: still", "    initial: {still: 1}", "{still", "'initial' is a list, not a mapping"),
    structural(CHART, "type: history", "type: histroy", "histroy", "did you mean 'history'?"),
    structural(
        CHART,
        "- {raise: tell}",
        "- {raise: tell, agent: judge}",
        "{raise",
        "an action does exactly one thing",
        "'raise' and 'agent'",
    ),
    structural(CHART, "    always:", "    alway:", "alway", "unknown key 'alway'; did you mean 'always'?"),
    structural(
        CHART, "{id: closer, tool: pull,", "{id: closer,", "{id", "give it exactly one of 'agent', 'tool' or 'workflow'"
    ),
    semantic(
        CHART, "{id: closer, tool: pull,", "{id: closer, tool: ,", "{id", "exactly one of 'agent', 'tool' or 'workflow'"
    ),
    structural(CHART, "context: {count: 0, who: nobody}", "context: 5", "5", "'context' is a mapping, not 5"),
]
"""Mistakes in the form."""

NAMES = [
    semantic(
        DAG,
        "needs: [classify]",
        "needs: [clasify]",
        "clasify",
        "needs 'clasify', which does not exist",
        "did you mean 'classify'?",
    ),
    semantic(DAG, "needs: [classify]", "needs: lookup", "lookup", "node 'lookup' needs itself"),
    semantic(
        DAG,
        "from: [verify, race]",
        "from: [verify, rase]",
        "rase",
        "takes 'rase', which does not exist; did you mean 'race'?",
    ),
    semantic(DAG, "from: [verify, race]", "from: [verify, joined]", "joined", "node 'joined' takes its own output"),
    semantic(
        DAG,
        "    agent: triage\n    with: {order",
        "    agent: triag\n    with: {order",
        "triag",
        "asks agent 'triag'",
        "did you mean 'triage'?",
    ),
    semantic(
        DAG, "left: {agent: writer}", "left: {agent: riter}", "riter", "asks agent 'riter'", "did you mean 'writer'?"
    ),
    semantic(DAG, "limit: calls", "limit: cals", "cals", "there is no limit 'cals'; did you mean 'calls'?"),
    semantic(DAG, "{signal: paid", "{signal: piad", "piad", "there is no signal 'piad'; did you mean 'paid'?"),
    semantic(
        DAG,
        "then: escalate",
        "then: escalat",
        "escalat",
        "leads to 'escalat', which does not exist; did you mean 'escalate'?",
    ),
    semantic(
        DAG, "then: middle", "then: midle", "midle", "leads to 'midle', which does not exist; did you mean 'middle'?"
    ),
    semantic(DAG, "default: small", "default: route", "route", "leads to itself; use a loop to go back"),
    semantic(
        DAG,
        "default: small",
        "default: escalate",
        "escalate",
        "'escalate' is already led to by the catch of 'charge'; only one",
    ),
    semantic(DAG, "order: input.order", "order: inptu.order", "inptu", "unknown name 'inptu'", "did you mean 'input'?"),
    semantic(
        DAG,
        'output: "${{ nodes.joined.output }}"',
        'output: "${{ nodes.joind.output }}"',
        '"${{',
        "reads node 'joind'",
        "did you mean 'joined'?",
    ),
    semantic(
        DAG,
        'output: "${{ nodes.joined.output }}"',
        'output: "${{ nodes.judge.output }}"',
        '"${{',
        "reads node 'judge', which does not exist here; it lies within node 'polish': read nodes.polish.output",
    ),
    semantic(
        DAG, 'two: {set: "${{ nodes.one.output }}"}', 'two: {set: "${{ nodes.race.output }}"}', '"${{', "from within it"
    ),
    semantic(
        DAG,
        'two: {set: "${{ nodes.one.output }}"}',
        'two: {set: "${{ nodes.two.output }}"}',
        '"${{',
        "reads its own result",
    ),
    semantic(
        DAG,
        "  large: {set: {size: 3}}",
        '  large: {set: {size: "${{ secrets.key }}"}}',
        '"${{',
        "secrets may be read in 'with' only",
    ),
    semantic(
        DAG,
        "  large: {set: {size: 3}}",
        '  large: {set: {size: "${{ error.message }}"}}',
        '"${{',
        "'error' is there in 'catch'",
    ),
    semantic(
        DAG,
        "  large: {set: {size: 3}}",
        '  large: {set: {size: "${{ loop.last }}"}}',
        '"${{',
        "'loop' is there within a loop",
    ),
    semantic(
        DAG,
        "  large: {set: {size: 3}}",
        '  large: {set: {size: "${{ context.a }}"}}',
        '"${{',
        "'context' is there in statecharts",
    ),
    semantic(
        DAG,
        "  large: {set: {size: 3}}",
        '  large: {set: {size: "${{ input.amount"}}',
        '"${{',
        "'${{' without '}}'",
        "quote this value",
    ),
    semantic(
        DAG, "as: claim", "as: input", "input", "'input' is a name that expressions begin with already; choose another"
    ),
    semantic(
        DAG,
        "as: claim, max_parallel: 4",
        "as: claim, index: claim",
        "claim",
        "the item and its index are both named 'claim'",
    ),
    semantic(DAG, "initial: idle", "initial: idl", "idl", "there is no state 'idl'; did you mean 'idle'?"),
    semantic(CHART, "target: ajar\n", "target: ajra\n", "ajra", "there is no state 'ajra'; did you mean 'ajar'?"),
    semantic(CHART, "{close: moving}", "{close: movin}", "movin", "there is no state 'movin'; did you mean 'moving'?"),
    semantic(CHART, "initial: shut", "initial: shot", "shot", "there is no state 'shot'; did you mean 'shut'?"),
    semantic(
        CHART, "    initial: still", "    initial: shut", "shut", "initial state 'shut' does not lie within 'ajar'"
    ),
    semantic(
        CHART, "on: {close: moving}", "on: {clos: moving}", "clos", "there is no event 'clos'; did you mean 'close'?"
    ),
    semantic(CHART, "{agent: judge}", "{agent: jugde}", "jugde", "asks agent 'jugde'", "did you mean 'judge'?"),
    semantic(
        CHART,
        "if: context.count > 9",
        "if: contxt.count > 9",
        "contxt",
        "unknown name 'contxt'",
        "did you mean 'context'?",
    ),
    semantic(
        CHART, "if: context.count > 9", "if: nodes.a.output", "nodes", "unknown name 'nodes'", "there are context"
    ),
    semantic(
        CHART,
        "[{target: broken}]",
        "[{target: borken}]",
        "borken",
        "there is no state 'borken'; did you mean 'broken'?",
    ),
    semantic(
        CHART,
        "after: {30m:",
        "after: {'${{ context.cuont }}':",
        "'${{",
        "'context.cuont' can never be read",
        "did you mean 'count'?",
    ),
    semantic(
        CHART,
        "  broken:\n    type: final",
        '  broken:\n    compensate: {workflow: {name: w, id: "${{ contxt.who }}"}}\n    type: final',
        '"${{ contxt',
        "unknown name 'contxt'",
        "did you mean 'context'?",
    ),
    semantic(CHART, "default: still", "default: stil", "stil", "there is no state 'stil'; did you mean 'still'?"),
]
"""Names that are not there."""

SHAPE = [
    semantic(
        DAG,
        "  classify:\n    agent: triage\n",
        "  classify:\n    agent: triage\n    needs: [charge]\n",
        "classify",
        "the nodes wait for each other in a circle",
        "classify needs charge needs classify",
    ),
    semantic(
        DAG,
        "    wait: {signal: paid, timeout: 2d, on_timeout: fail}\n",
        "    wait: {signal: paid, timeout: 2d, on_timeout: fail}\n    heartbeat: 5s\n",
        "heartbeat",
        "only a tool gives heartbeats",
        "use 'timeout'",
    ),
    semantic(DAG, "  race:\n", "  race:\n    needs: [joined]\n", "race", "race needs joined needs race", "circle"),
    semantic(
        DAG,
        "{when: input.amount > 10, then",
        "{when: input.amount > 200, then",
        "input",
        "never reached; put it before",
    ),
    semantic(
        DAG,
        "{when: input.amount > 10, then",
        "{when: input.amount > 100 and input.urgent, then",
        "input",
        "never reached",
    ),
    semantic(
        DAG,
        "large: {set: {size: 3}}",
        "both: {set: 1, needs: [large, middle], join: all_succeeded}\n  large: {set: {size: 3}}",
        "both",
        "node 'both' is unreachable",
        "different arms of switch 'route'",
        "use `join: none_failed`",
    ),
    semantic(
        DAG,
        "- {on: Declined, output: null}",
        "- {on: CardExpired, output: null}",
        "CardExpired",
        "so this one is never reached",
    ),
    semantic(
        DAG,
        "- {on: Declined, output: null}",
        "- {output: null}\n      - {output: 1}",
        "{output: 1}",
        "takes every error, so this one is never reached",
    ),
    semantic(
        DAG,
        "{on: [CardExpired], then: escalate}",
        "{on: [CardExpired], then: escalate, output: 1}",
        "{on",
        "'then' or 'output', not both",
    ),
    semantic(
        DAG,
        "on: [Timeout]}",
        "on: [Timeout], not_on: [Timeout]}",
        "[Timeout]}",
        "stands under 'on' and 'not_on'; keep one",
    ),
    semantic(
        DAG, "    fail: {", "    compensate: {tool: undo}\n    fail: {", "compensate", "never completes", "leave it out"
    ),
    semantic(
        DAG,
        'wait: {until: "2030-01-01T09:00:00+01:00"}',
        'wait: {until: "2030-01-01T09:00:00"}',
        '"2030',
        "has no zone; add one, such as Z",
    ),
    semantic(
        DAG,
        'wait: {until: "2030-01-01T09:00:00+01:00"}',
        "wait: {until: next week}",
        "next week",
        "'next week' is not a time; write one such as",
    ),
    semantic(
        DAG,
        "wait: {signal: paid, timeout: 2d",
        "wait: {signal: paid, duration: 2d",
        "{signal",
        "one of 'duration', 'until' or 'signal'",
    ),
    semantic(
        DAG,
        "wait: {signal: paid, timeout: 2d, on_timeout: fail}",
        "wait: {signal: paid, on_timeout: continue}",
        "continue",
        "no 'timeout' that could pass; add one",
    ),
    semantic(DAG, "join: any", "join: 3", "3", "3 of 2 branches can never succeed; join 1 to 2"),
    semantic(
        DAG,
        "{until: loop.last.good,",
        "{until: loop.last.good, while: loop.index < 3,",
        "until",
        "a loop has 'while' or 'until', not both",
    ),
    semantic(
        DAG,
        "aggregate: {from: [verify, race], how: collect}",
        "aggregate: {from: [verify, race]}",
        "{from",
        "one of 'how', 'agent' or 'tool', not none",
    ),
    semantic(
        DAG,
        "  - name: pay\n",
        "  - {name: pay, call: a:b}\n  - name: pay\n",
        "pay\n",
        "there is another tool named 'pay'; rename one of them",
    ),
    semantic(DAG, "kind: dag", "kind: dag\nstates: {a: {}}", "states", "belongs to a workflow with `kind: statechart`"),
    semantic(
        DAG, "calls: {concurrency: 4}", "calls: {per: 1s}", "calls", "limits nothing; give it 'concurrency' or 'rate'"
    ),
    semantic(
        DAG,
        "idle: {after: {1h: over}}",
        "idle: {after: {1 hour: over}}",
        "1 hour",
        "not a duration: '1 hour'; write 500ms",
    ),
    semantic(CHART, "after: {30m:", "after: {half an hour:", "half an hour", "not a duration: 'half an hour'"),
    semantic(
        CHART,
        "  broken:\n    type: final",
        "  lost:\n    on: {open: shut}\n  broken:\n    type: final",
        "lost",
        "state 'lost' is unreachable",
        "add one",
    ),
    semantic(
        CHART,
        "past: {type: history, default: still}",
        "past: {type: history}",
        "past",
        "history 'ajar.past' has no 'default'",
        "add it",
    ),
    semantic(CHART, "    type: final\n", "    type: final\n    always: shut\n", "always", "leave 'always' out"),
    semantic(
        CHART,
        "    type: final\n",
        "    type: final\n    compensate: {tool: undo}\n",
        "compensate",
        "never runs; leave it out",
    ),
    semantic(
        CHART,
        "invoke: {id: closer, tool: pull, on_done: shut, on_error: [{target: broken}]}",
        "invoke: [{id: closer, tool: pull, on_done: shut, on_error: broken}, {id: closer, tool: push}]",
        "{id: closer, tool: push}",
        "give this one an 'id'",
    ),
    semantic(CHART, "{target: ajar.past}", "{target: [ajar, shut]}", "[ajar", "cannot be entered together"),
    semantic(CHART, "{target: ajar.past}", "{target: [ajar.past, moving]}", "[ajar", "in no two regions of a parallel"),
    semantic(CHART, "initial: shut", "initial: [shut, broken]", "[shut", "cannot be entered together"),
    semantic(CHART, "default: still", "default: shut", "shut", "does not lie within 'ajar'"),
    semantic(CHART, "default: still", "default: past", "past", "is a history of the same state; name a state"),
    semantic(
        CHART,
        "    initial: still\n    states:\n",
        "    type: parallel\n    states:\n      end: {type: final}\n",
        "end",
        "final state 'ajar.end' is a region of parallel state 'ajar'",
    ),
    semantic(CHART, "on: {close: moving}", "on: {clo*: moving}", "clo*", "'clo*' is no event", "a prefix such as"),
    semantic(CHART, "- {raise: tell}", "- {raise: tell..}", "tell..", "'tell..' is no event's name"),
]
"""Parts that do not go together."""

CLASSIFIED = '{claim: "${{ claim }}"}'
TYPES = [
    semantic(
        DAG,
        "items: nodes.classify.output.claims",
        "items: nodes.classify.output.claim",
        "nodes",
        "there is no 'claim'; did you mean 'claims'?",
    ),
    semantic(
        DAG,
        "items: nodes.classify.output.claims",
        "items: nodes.classify.output.category",
        "nodes",
        "is text, and 'items' gives a list",
    ),
    semantic(DAG, "items: nodes.classify.output.claims", "items: true", "true", "'items' gives a list"),
    semantic(
        DAG,
        "items: nodes.classify.output.claims",
        "items: nodes.classify.outptu",
        "nodes",
        "there is no 'outptu'; did you mean 'output'?",
    ),
    semantic(
        DAG, CLASSIFIED, '{claim: "${{ claim.text }}"}', '"${{', "'claim.text' can never be read: text has no 'text'"
    ),
    semantic(DAG, "if: input.urgent", "if: input.urgnt", "input", "there is no 'urgnt'; did you mean 'urgent'?"),
    semantic(
        DAG,
        "if: input.urgent",
        "if: input.amount",
        "input",
        "'input.amount' is a number, and a condition gives true or false",
    ),
    semantic(DAG, "if: input.urgent", "if: input.order.number == 3", "input", "text has no 'number'"),
    semantic(
        DAG,
        "{until: loop.last.good,",
        "{until: loop.last.category,",
        "loop",
        "is text, and a condition gives true or false; compare it",
    ),
    semantic(
        DAG,
        "if: nodes.approve.output.approved and",
        "if: nodes.approve.output.aproved and",
        "nodes",
        "there is no 'aproved'; did you mean 'approved'?",
    ),
    semantic(
        DAG,
        "if: nodes.approve.output.approved and nodes.receipt.output.total > 3",
        "if: nodes.approve.output.approved and nodes.deposit.output.total > 3",
        "nodes",
        "there is no 'total'; there are sum",
    ),
    semantic(
        DAG,
        "if: nodes.approve.output.approved and nodes.receipt.output.total > 3",
        "if: nodes.approve.output.approved and nodes.hold.output.total > 3",
        "nodes",
        "null has no 'total'",
    ),
    semantic(
        DAG,
        "if: nodes.approve.output.approved and nodes.receipt.output.total > 3",
        "if: nodes.approve.output.approved and nodes.race.output.lfet > 3",
        "nodes",
        "there is no 'lfet'; did you mean 'left'?",
    ),
    semantic(
        DAG,
        "if: nodes.approve.output.approved and nodes.receipt.output.total > 3",
        "if: nodes.approve.output.approved and nodes.verify.output.text > 3",
        "nodes",
        "a list has no 'text'",
    ),
    semantic(
        DAG,
        "if: nodes.approve.output.approved and nodes.receipt.output.total > 3",
        "if: nodes.approve.output.approved and nodes.told.output.snet",
        "nodes",
        "there is no 'snet'; did you mean 'sent'?",
    ),
    semantic(
        DAG,
        'two: {set: "${{ nodes.one.output }}"}',
        'two: {set: "${{ nodes.one.output.x }}"}',
        '"${{',
        "a number has no 'x'",
    ),
    semantic(DAG, '"1", amount: 2.5', '"1", amount: lots', "lots", "tool 'pay' does not take this for 'amount'"),
    semantic(
        DAG,
        '"1", amount: 2.5',
        '"1", amuont: 2.5, amount: 1',
        "amuont",
        "tool 'pay' takes no 'amuont'; did you mean 'amount'?",
    ),
    semantic(
        DAG,
        'with: {order: "1", amount: 2.5}',
        'with: {order: "1"}',
        "{order",
        "tool 'pay' needs 'amount', which is not given; add it",
    ),
    semantic(
        DAG,
        '    tool: pay\n    with: {order: "1", amount: 2.5}',
        "    tool: pay",
        "pay",
        "tool 'pay' needs 'amount', which is not given",
    ),
    semantic(
        DAG,
        'amount: "${{ input.amount }}"',
        'amount: "${{ input.order }}"',
        '"${{',
        "takes a number for 'amount'",
        "is text",
    ),
    semantic(
        DAG,
        'amount: "${{ input.amount }}"',
        'amount: "${{ input.amount }} Euro"',
        '"${{',
        "takes a number for 'amount'",
        "is text",
    ),
    semantic(
        DAG,
        'with: {to: "${{ nodes.charge.output }}"}',
        'with: {two: "${{ nodes.charge.output }}", to: x}',
        "two",
        "workflow 'notify' takes no 'two'",
    ),
    semantic(
        DAG,
        '    workflow: notify\n    with: {to: "${{ nodes.charge.output }}"}',
        "    workflow: notify",
        "notify",
        "workflow 'notify' needs 'to'",
    ),
    semantic(
        DAG,
        "model: m\n    instructions: Classify.\n    output:\n      type: object",
        "model: m\n    instructions: Classify.\n    output:\n      type: objekt",
        "objekt",
        "not a valid JSON Schema: 'objekt' is not a type",
        "did you mean 'object'?",
    ),
    semantic(
        DAG,
        "customer: {type: object, properties: {city: {type: string}}}",
        'customer: {$ref: "#/$defs/customer"}',
        '"#',
        "leads nowhere",
        "'$defs'",
    ),
    semantic(
        DAG,
        "customer: {type: object, properties: {city: {type: string}}}",
        "customer: {$ref: https://example.org/customer.json}",
        "https://example.org/customer.json",
        "is outside of this schema, and nothing is fetched",
    ),
    semantic(
        DAG,
        "model: m\n    instructions: Classify.\n",
        "model: m\n    options: {model: other}\n    instructions: Classify.\n",
        "{model: other}",
        "'model' is not among the options",
    ),
    semantic(
        DAG,
        "order: {type: string}\n    amount",
        'order: {type: string, pattern: "("}\n    amount',
        '"(',
        "not a valid JSON Schema",
    ),
    semantic(
        DAG,
        'with: {to: "${{ input.to }}"}',
        'with: {to: "${{ input.too }}"}',
        '"${{',
        "there is no 'too'; did you mean 'to'?",
    ),
    semantic(
        CHART, '"${{ event.data.who }}"', '"${{ event.data.whom }}"', '"${{', "there is no 'whom'; did you mean 'who'?"
    ),
    semantic(
        CHART, "if: context.count < 3", "if: context.coutn < 3", "context", "there is no 'coutn'; did you mean 'count'?"
    ),
]
"""Reads and calls that do not fit what is known of the types."""

EXPRESSIONS = [
    semantic(DAG, "if: input.urgent", "if: input.urgent ==", "input", "cannot read the expression 'input.urgent =='"),
    semantic(DAG, "if: input.urgent", "if: exec(input.urgent)", "exec", "there is no function 'exec'; there are"),
    semantic(DAG, "if: input.urgent", "if: input.__class__", "input", "names do not begin with '_'"),
    semantic(
        DAG, "if: input.urgent", 'if: "${{ input.urgent }} yes"', '"${{', "a condition is one expression, not text"
    ),
    semantic(DAG, "if: input.urgent", "if: nodes", "nodes", "name the node that is read: nodes.NAME.output"),
]
"""Expressions that cannot be read."""

UNREADABLE = [
    structural(
        DAG, "kind: dag", "kind: dag\nkind : dag", "kind :", "the key 'kind' stands twice in this mapping; keep one"
    ),
    structural(
        DAG,
        '    with: {order: "${{ input.order }}"}\n',
        "    with: {order: ${{ input.order }}}\n",
        "{{",
        "not valid YAML",
        "quote values with '${{ }}'",
    ),
    structural(
        DAG, "kind: dag", "kind: !!python/name:os.system dag", "!!", "the tag", "is not allowed; use plain YAML"
    ),
    structural(DAG, "    wait: 5m", "    5: 5m", "5:", "keys are strings; quote this one: '5'"),
    structural(DAG, "attempts: 3", "attempts: .nan", ".nan", ".nan is not a JSON float; quote it"),
]
"""Text that is no YAML of ours."""

WARNED = [
    warned(
        CHART,
        "    initial: still\n",
        "    initial: still\n    on_done: shut\n",
        "on_done: shut\n",
        "compound state 'ajar' is never done: 'ajar' has no final state to come to; add one, or leave 'on_done' out",
    ),
    warned(
        CHART,
        "  locked:\n    entry:",
        "  both:\n    type: parallel\n    on_done: broken\n    states: {one: {states: {a: {type: final}}}, two: {}}\n"
        "  locked:\n    after: {1h: both}\n    entry:",
        "on_done: broken",
        "parallel state 'both' is never done: 'both.two' has no final state to come to",
    ),
    warned(
        DAG,
        'output: "${{ nodes.joined.output }}"',
        'output: "${{ nodes.large.output.size }}"',
        '"${{',
        "fails when node 'large' is skipped",
        "write `default(nodes.large.output.size, ...)`",
    ),
    warned(
        DAG,
        "  hold:\n    wait: 5m",
        '  hold:\n    needs: [classify]\n    set: "${{ nodes.large.output.size }}"',
        '"${{',
        "is skipped: its output is null",
        "`join: all_succeeded`",
    ),
    warned(
        DAG,
        '  tell: {tool: mail, with: {why: "${{ error.message }}"}}',
        '  tell: {tool: mail, with: {why: "${{ nodes.receipt.output.total }}"}}',
        '"${{',
        "node 'receipt' need not have run by then",
        "default(nodes.receipt.output.total, ...)",
    ),
    warned(
        DAG,
        "if: input.urgent",
        "if: input.customer.town == 'x'",
        "input",
        "may be missing: 'town' is not declared; there are city",
    ),
    warned(DAG, "if: input.urgent", "if: false", "false", "node 'lookup' never runs: its condition is always false"),
    warned(
        DAG,
        "timeout: 30s",
        "timeout: 30s\n    deadline: 10s",
        "10s",
        "the deadline for all tries is shorter than the timeout of one",
    ),
    warned(
        DAG,
        "    workflow: notify\n",
        "    workflow: notifi\n",
        "notifi",
        "no 'notifi' under 'workflows'; did you mean 'notify'?",
    ),
    warned(
        DAG,
        "  receipt:\n    tool: pay\n",
        "  receipt:\n    tool: pays\n",
        "pays",
        "no 'pays' under 'tools'; did you mean 'pay'?",
    ),
    warned(
        DAG,
        "city: {type: string}",
        "city: {type: string, maxlength: 3}",
        "maxlength",
        "no keyword of JSON Schema; did you mean 'maxLength'?",
    ),
    warned(
        DAG,
        "idle: {after",
        "idle: {entry: {raise: tel}, on: {tell: over}, after",
        "tel}",
        "no state takes the raised event 'tel'; did you mean 'tell'?",
    ),
]
"""Warnings, which `strict` makes errors."""

ALL = [*FORM, *NAMES, *SHAPE, *TYPES, *EXPRESSIONS, *UNREADABLE]


def bad_definitions() -> Iterator[tuple[str, str, bool]]:
    """Yield the name and the text of every bad definition, and whether a JSON Schema of definitions can find it."""
    for bad in ALL:
        yield bad.name, bad.text, bad.structural and bad not in UNREADABLE
