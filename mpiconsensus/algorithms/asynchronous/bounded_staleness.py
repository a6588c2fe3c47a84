"""Average consensus with the newest rows that have arrived, and bounds on how stale they are.

    y_i^t     = x_i^t - a_t g_i(x_i^t)                       at the vertex's own pace, published with clock t
    wait until every neighbour has published clock t - s or a later one
    x_i^{t+1} = W[i,i] y_i^t + sum_j W[i,j] y_j^{c_j}        c_j: the newest clock at most t + s that has arrived from j

so that the clocks of neighbours, on a directed graph at either end of an arc, differ by s + 1 at most while they train. s = 0 is
consensus, order atc, bit for bit; with s = inf nobody waits and the newest row counts, whatever its clock. With any finite s the
run goes, in the end, at the pace of a vertex that is always slow: the bound forgives slow-downs that pass.

The age of a row is min(max(0, t - c_j), steps that the reader has begun since it was published). A row older than
max_age is not mixed; with age_damping p a row of age a has weight W[i,j] / (1 + a)^p. What is lost goes to the diagonal.

Sends: a row over each edge, both ways (an arc: one way), a step.  State: the last rows published.
Assumes: rows of W sum to 1. A message that is lost for good holds its reader up where s is finite.
Conserves: nothing, unless all ages are 0: a row that is mixed late, or twice, counts as often as it is mixed. Vertices that agree stay as they are.
Differs from the paper in: neighbours of a graph take the place of a parameter server, and damping that of the choice to wait.
Reference: Ho et al., More effective distributed ML via a stale synchronous parallel parameter server, NeurIPS 2013,
section 2; on graphs: Luo, Lin, Zhuo & Qian, Hop: heterogeneity-aware decentralized training, ASPLOS 2019; damping by a power of the age:
Xie, Koyejo & Gupta, Asynchronous federated optimization, 2019, section 5.
"""

import math
import time

from mpiconsensus.algorithms.asynchronous.base import Ages, Asynchronous
from mpiconsensus.errors import TrainingError, UserError
from mpiconsensus.mixing import Sums
from mpiconsensus.pieces import pieces
from mpiconsensus.schedule import blend

TRIES = 3  # sums over rows in place, before rows are copied
BLENDS = 4096  # rows of weights that are kept: one a vertex and set of neighbours that it mixes


class BoundedStaleness(Asynchronous):
    name = "bounded-staleness"
    formula = "x_i <- W[i,i] y_i + sum_j W[i,j] y_j of the newest clock at most t + s, once all neighbours have clock t - s; y = x - a g"
    reference = "Ho et al. 2013"
    keys = ("staleness", "max_age", "age_damping", "ends", "final_average")

    def __init__(self, setting):
        super().__init__(setting)
        options = setting.options
        self.bound, self.max_age, self.damping = options.staleness, options.max_age, options.age_damping
        for i, row in enumerate(self.weights):
            if abs(sum(row.values()) - 1.0) > 1e-9:
                raise UserError(
                    f"algorithm.name = bounded-staleness needs rows of weights that sum to 1, row {i} sums to {sum(row.values()):.6g}; "
                    "take algorithm.name = async-gossip, or weights such as uniform."
                )
        self._blends = {}
        self._read = [[j for j in row if j != i] for i, row in enumerate(self.weights)]

    def open(self, transport, block, placement):
        self.mailbox, self.block, self.placement = transport, block, placement
        self.ages = Ages(block.m)
        self._cut = pieces if len(pieces(block.x(0))) > 1 else lambda row: (row,)
        self._kept = [[] for _ in range(block.m)]  # (clock, buffer) of the last two rows published
        for i in range(block.m):
            self._publish(i, -1)
            self._go_on(i)

    def begin(self, i, t):
        self.ages.begin(i, self.mailbox.now())

    def adapted(self, i, t):
        self._publish(i, t)

    def held_by(self, i, t):
        least = t - self.bound
        return dict.fromkeys(self.adjacent[self.placement.hosted[i]], least) if least >= 0 else {}

    def mix(self, i, t):
        start = time.perf_counter()
        for tried in range(TRIES + 1):
            letters = self._letters(i, t, copies=tried == TRIES)
            ages, mixed = {}, {}
            for letter in letters:
                age = self.ages.of(i, t, letter)
                if age <= self.max_age:
                    ages[letter.vertex], mixed[letter.vertex] = age, letter
            own = self.block.x(i)
            terms = [(self._cut(mixed[j].row if j in mixed else own), share) for j, share in self._blend(i, ages)]
            Sums([(self.block.next_pieces(i), terms)], self.mailbox.stream).run()
            if tried == TRIES or self.mailbox.intact(list(mixed.values())):
                break
        self.block.flip(i)
        self.ages.forget(i, letters)
        ages = list(ages.values())
        self._promise(i, t, letters, ages)
        return ages, time.perf_counter() - start

    def look(self, vertex, out):
        mailbox = self.mailbox.unheld
        for _ in range(TRIES):
            letter = mailbox.peek(vertex, self.placement.hosted[0])
            if letter is None:
                return False
            out.copy_(letter.row[: len(out)])
            if mailbox.intact([letter]):
                break
        return True  # lapped again and again: a measurement, not a promise

    def state_dict(self, i):
        """Return the rows that neighbours may still read, with their clocks, and whether the vertex's own is the last of them."""
        kept = [(clock, self.block.storage[buffer][i].clone()) for clock, buffer in self._kept[i]]
        return {"published": kept, "held": self._kept[i][-1][1] == self.block.current[i]}

    def load_state_dict(self, i, state):
        row = self.block.x(i).clone()
        last = state["published"][-1][0]
        for clock, published in state["published"]:
            if clock < 0:
                continue  # the initial row: published by `open`
            self.block.x(i).copy_(published)
            self._publish(i, int(clock))
            if clock < last or not state["held"]:
                self._go_on(i)
        self.block.x(i).copy_(row)

    def _publish(self, i, clock):
        self.mailbox.publish(i, clock)
        self._kept[i] = [*self._kept[i][-1:], (clock, self.block.current[i])]

    def _go_on(self, i):
        """Leave the published row to its readers and work in a copy."""
        self.block.other(i).copy_(self.block.x(i))
        self.block.flip(i)

    def _letters(self, i, t, copies):
        """Return the letters of the neighbours that are read and from whom one has arrived; copies: with rows of their own."""
        reader = self.placement.hosted[i]
        at_most = None if self.bound == math.inf else t + self.bound
        letters = self.mailbox.letters(self._read[reader], reader, at_most)
        for place, letter in enumerate(letters if copies else ()):
            while letter:
                letters[place] = letter._replace(row=letter.row.clone())
                if self.mailbox.intact([letter]):
                    break
                letters[place] = letter = self.mailbox.peek(letter.vertex, reader, at_most)
        return list(filter(None, letters)) if copies else letters

    def _blend(self, i, ages):
        """Return [(j, share)] of the row of W of hosted vertex i where rows of these ages {j: age} are mixed, the rest on the diagonal."""
        vertex = self.placement.hosted[i]
        damped = self.damping and any(ages.values())
        key = vertex, *ages
        if not damped and key in self._blends:
            return self._blends[key]
        own = self.weights[vertex]
        weights = {j: own[j] / (1 + age) ** self.damping if damped else own[j] for j, age in ages.items()}
        lost = sum(own[j] - weights.get(j, 0.0) for j in own if j != vertex)
        weights[vertex] = own.get(vertex, 0.0) + lost
        found = blend(sorted(weights.items())) or [(vertex, 1.0)]
        if not damped and len(self._blends) < BLENDS:
            self._blends[key] = found
        return found

    def _promise(self, i, t, letters, ages):
        """Raise TrainingError where a row is staler than the bounds allow: a transport broke its contract."""
        vertex = self.placement.hosted[i]
        missing = t >= self.bound and len(letters) < len(self._read[vertex])
        apart = self.bound < math.inf and any(abs(letter.clock - t) > self.bound for letter in letters)
        if missing or apart or (ages and max(ages) > min(self.bound, self.max_age)):
            found = ", ".join(f"vertex {letter.vertex} at clock {letter.clock}" for letter in letters)
            raise TrainingError(
                f"vertex {vertex} mixed rows beyond algorithm.staleness = {self.bound} or max_age = {self.max_age} at step {t}: {found or 'none'}; "
                "the mailbox has not kept its promise, please report this."
            )
