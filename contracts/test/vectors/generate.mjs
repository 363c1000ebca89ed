// Writes clock.json, curve.json and quote.json: what Payments' clock, an outage's price and a quote's digest have to be,
// computed here a third time so that the contracts and the Rust crate `protocol`, which are both held to these files, cannot be wrong together.
//
//   node contracts/test/vectors/generate.mjs
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const { keccak256 } = createRequire(import.meta.url)("js-sha3");
const SCALE = 10n ** 9n;
const START = 1_800_000_000n;
const FOREVER = 2n ** 40n - 1n;
const max = (bits) => 2n ** BigInt(bits) - 1n;

// The clock ------------------------------------------------------------------------------------------------------------

class Refused extends Error {}

class Account {
  constructor() {
    Object.assign(this, { free: 0n, lockup: 0n, rate: 0n, clock: 0n, settledAt: 0n, dry: false, streams: [] });
  }

  settle(now) {
    if (this.rate === 0n) {
      [this.settledAt, this.dry] = [now, false];
    } else if (!this.dry) {
      const elapsed = now - this.settledAt;
      const funded = this.free / this.rate;
      this.dry = funded < elapsed;
      const secs = this.dry ? funded : elapsed;
      this.free -= secs * this.rate;
      this.clock += secs;
      this.settledAt += secs;
    }
    for (const stream of this.streams.filter((s) => s.state === "Running")) {
      stream.owed += stream.rate * (this.clock - stream.clockAt);
      stream.clockAt = this.clock;
    }
  }

  requireFunded() {
    if (this.dry || this.free < this.lockup) throw new Refused(`Underfunded ${this.lockup} ${this.free}`);
  }

  step(now, { action, stream: which, amount, rate, lock, start }) {
    this.settle(now);
    const stream = this.streams[which];
    const needs = (...states) => {
      if (!states.includes(stream.state)) throw new Refused(`WrongState ${stream.state}`);
    };
    switch (action) {
      case "look":
        return 0n;
      case "deposit": {
        this.free += amount * SCALE;
        if (!this.dry) return 0n;
        const needed = this.lockup > this.rate ? this.lockup : this.rate;
        if (this.free < needed) throw new Refused(`TopUpTooSmall ${needed - this.free}`);
        [this.settledAt, this.dry] = [now, false];
        return 0n;
      }
      case "withdraw": {
        const available = this.free > this.lockup ? this.free - this.lockup : 0n;
        if (amount * SCALE > available) throw new Refused(`Underfunded ${amount * SCALE} ${available}`);
        this.free -= amount * SCALE;
        return 0n;
      }
      case "open":
        if (which !== this.streams.length) throw new Error(`stream ${which} is opened out of turn`);
        this.streams.push({ rate, lock, state: start ? "Running" : "Reserved", owed: 0n, clockAt: this.clock });
        this.lockup += rate * lock;
        if (start) this.rate += rate;
        this.requireFunded();
        return 0n;
      case "start":
        needs("Reserved");
        [stream.state, stream.clockAt] = ["Running", this.clock];
        this.rate += stream.rate;
        this.requireFunded();
        return 0n;
      case "setRate": {
        needs("Reserved", "Running");
        const [before, after] = [stream.rate * stream.lock, rate * lock];
        const raised = rate > stream.rate || after > before;
        if (stream.state === "Running") this.rate += rate - stream.rate;
        this.lockup += after - before;
        [stream.rate, stream.lock] = [rate, lock];
        if (raised) this.requireFunded();
        return 0n;
      }
      case "close":
        needs("Reserved", "Running");
        if (stream.state === "Running") this.rate -= stream.rate;
        this.lockup -= stream.rate * stream.lock;
        [stream.rate, stream.state] = [0n, "Closed"];
        return 0n;
      case "collect": {
        const collected = stream.owed / SCALE;
        stream.owed -= collected * SCALE;
        return collected;
      }
    }
    throw new Error(`no such action: ${action}`);
  }

  copy() {
    const copy = Object.assign(new Account(), this);
    copy.streams = this.streams.map((stream) => ({ ...stream }));
    return copy;
  }

  seen(now) {
    const copy = this.copy();
    copy.settle(now);
    const end = copy.rate === 0n ? FOREVER : copy.settledAt + (copy.dry ? 0n : copy.free / copy.rate);
    const { free, lockup, rate, clock } = copy;
    const streams = copy.streams.map((s) => ({ rate: s.rate, lock: s.lock, state: s.state, owed: s.owed }));
    return { account: { free, lockup, rate, clock, fundedUntil: end < FOREVER ? end : FOREVER }, streams };
  }
}

// Plays steps, `after` seconds apart, on an account that is new, and notes what each brings.
function play(name, inputs) {
  let account = new Account();
  let now = START;
  const steps = inputs.map(({ after = 0n, ...input }) => {
    now += BigInt(after);
    const step = { action: "look", stream: 0, amount: 0n, rate: 0n, lock: 0n, start: false, ...input };
    const next = account.copy();
    let [refusal, collected] = ["", 0n];
    try {
      collected = next.step(now, step);
      account = next;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      refusal = error.message;
    }
    return { time: now, ...step, expect: { refusal, collected, ...account.seen(now) } };
  });
  return { name, steps };
}

const deposit = (amount, after) => ({ after, action: "deposit", amount });
const withdraw = (amount, after) => ({ after, action: "withdraw", amount });
const open = (stream, rate, lock, start = true, after) => ({ after, action: "open", stream, rate, lock, start });
const setRate = (stream, rate, lock, after) => ({ after, action: "setRate", stream, rate, lock });
const on = (action) => (stream, after) => ({ after, action, stream });
const [start, close, collect] = ["start", "close", "collect"].map(on);
const look = (after) => ({ after, action: "look" });

// Scenarios that nobody thought of, the same ones every time.
function random(seed, length) {
  let state = BigInt(seed);
  const below = (limit) => {
    state = (state * 6364136223846793005n + 1442695040888963407n) & max(64);
    return (state >> 11n) % BigInt(limit);
  };
  const inputs = [deposit(50_000n)];
  let opened = 0;
  // Half of the rates are no whole number of base units.
  const aRate = () => below(2) === 0n ? below(20) * SCALE : below(3n * SCALE);
  while (inputs.length < length) {
    const after = below(4) === 0n ? below(20_000) : below(900);
    const which = opened === 0 ? 0 : Number(below(opened));
    const dice = below(14);
    if (dice < 3n) inputs.push(deposit(1n + below(60_000), after));
    else if (dice < 4n) inputs.push(withdraw(1n + below(9_000), after));
    else if (opened < 5 && (dice < 7n || opened === 0)) {
      inputs.push(open(opened, aRate(), below(1_500), below(3) !== 0n, after));
      opened += 1;
      // A refused opening leaves no stream behind that a later step could name.
      if (play("", inputs).steps.at(-1).expect.refusal !== "") opened -= 1;
    } else if (opened === 0) inputs.push(look(after));
    else if (dice < 9n) inputs.push(collect(which, after));
    else if (dice < 11n) inputs.push(setRate(which, aRate(), below(1_500), after));
    else if (dice < 12n) inputs.push(start(which, after));
    else if (dice < 13n) inputs.push(close(which, after));
    else inputs.push(look(after));
  }
  return inputs;
}

const third = SCALE / 3n;
const cases = [
  play("a stream accrues per second and is collected", [
    deposit(1_000n), open(0, 2n * SCALE, 60n), look(10n), collect(0, 5n), collect(0), look(100n),
  ]),
  play("rounding stays owed and is never paid twice", [
    deposit(100n), open(0, third, 0n), collect(0, 2n), collect(0, 1n), collect(0, 3n), close(0, 4n), collect(0, 50n),
  ]),
  play("all streams run dry in the same second", [
    deposit(100n), open(0, SCALE, 0n), open(1, 2n * SCALE, 0n, true, 10n), look(30n), look(1n), collect(0, 5_000n),
    collect(1), look(),
  ]),
  play("a top-up does not pay for the gap", [
    deposit(10n), open(0, SCALE, 5n), look(10n), look(50n), deposit(4n), deposit(5n), look(2n), collect(0, 1n), look(9n),
  ]),
  play("a top-up that leaves less than a second is refused", [
    deposit(1n), open(0, 3n * SCALE / 2n, 0n), look(1n), deposit(1n, 1n), look(1n), deposit(1n), deposit(2n),
  ]),
  play("exactly at the end an account is not dry yet", [
    deposit(10n), open(0, SCALE, 0n), look(10n), deposit(1n), look(1n), open(1, 0n, 0n, true), look(1n), open(2, 0n, 0n),
  ]),
  play("a withdrawal leaves the lockup", [
    deposit(100n), open(0, SCALE, 50n), withdraw(51n), withdraw(50n), withdraw(1n), look(20n), withdraw(1n), close(0),
    withdraw(31n), withdraw(30n),
  ]),
  play("a reserved stream locks and does not accrue", [
    deposit(100n), open(0, SCALE, 50n, false), open(1, SCALE, 51n, false), look(500n), start(0), start(0), look(10n),
    withdraw(41n), withdraw(40n), close(0), start(0), setRate(0, SCALE, 1n), close(0), collect(0),
  ]),
  play("a start needs the lockup", [
    deposit(100n), open(0, SCALE, 50n, false), open(1, SCALE, 0n), start(0, 51n), deposit(1n), start(0), look(10n),
  ]),
  play("a raise needs funds and a cut does not", [
    deposit(100n), open(0, SCALE, 50n), setRate(0, 2n * SCALE, 50n, 10n), setRate(0, 2n * SCALE, 45n), look(10n),
    setRate(0, 2n * SCALE, 44n), setRate(0, SCALE, 80n), setRate(0, SCALE, 70n), setRate(0, SCALE, 10n, 60n),
  ]),
  play("a cut while dry does not stretch what is left over the gap", [
    deposit(100n), open(0, 60n * SCALE, 0n), open(1, SCALE, 0n), look(2n), setRate(0, SCALE, 0n, 10n), look(30n),
    collect(1), deposit(1n), look(4n), collect(1), collect(0),
  ]),
  play("a close while dry does not stretch what is left over the gap", [
    deposit(100n), open(0, 33n * SCALE, 2n), open(1, SCALE / 2n, 9n, false), close(0, 20n), open(2, SCALE, 0n), look(9n),
    close(1), look(60n), open(2, SCALE, 0n), look(1n), collect(0), close(2),
  ]),
  play("an account without running streams starts afresh", [
    deposit(10n), open(0, 3n * SCALE, 0n), close(0, 50n), deposit(1n), withdraw(2n), open(1, SCALE, 0n, true, 7n),
    look(1n), collect(1),
  ]),
  play("the largest amounts that fit", [
    deposit(max(128) / SCALE), open(0, max(128) / SCALE / 10n, 9n), look(4n), collect(0), look(4n), close(0), collect(0),
    withdraw(1n),
  ]),
  play("a runway beyond the end of time", [
    deposit(10_000n), open(0, 1n, 0n), look(1_000_000n), setRate(0, 2n, max(32)), collect(0), look(),
  ]),
  ...[1, 2, 3, 4, 5, 6, 7, 8].map((seed) => play(`whatever comes, ${seed}`, random(seed, 40))),
];

// The quote ------------------------------------------------------------------------------------------------------------

const QUOTE = [
  ["address", "provider"], ["bytes32", "account"], ["uint64", "lease"], ["bytes32", "pod"], ["uint128", "rate"],
  ["uint32", "lock"], ["uint128", "coverage"], ["uint24", "grace"], ["uint24", "full"], ["uint24", "response"],
  ["uint24", "notice"], ["uint24", "startWithin"], ["uint40", "expiry"], ["uint64", "version"], ["uint256", "nonce"],
];
const word = (value) => Buffer.from(BigInt(value).toString(16).padStart(64, "0"), "hex");
const hash = (...parts) => Buffer.from(keccak256.arrayBuffer(Buffer.concat(parts.map((part) => Buffer.from(part)))));

function digest({ chainId, leases }, quote) {
  const domain = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";
  const type = `Quote(${QUOTE.map((field) => field.join(" ")).join(",")})`;
  const separator = hash(hash(domain), hash("Roadstead Leases"), hash("1"), word(chainId), word(leases));
  const struct = hash(hash(type), ...QUOTE.map(([, name]) => word(quote[name])));
  return `0x${hash("\x19\x01".split("").map((c) => c.charCodeAt(0)), separator, struct).toString("hex")}`;
}

const hex = (value, bytes) => `0x${BigInt(value).toString(16).padStart(2 * bytes, "0")}`;
const zero = Object.fromEntries(
  QUOTE.map(([type, name]) => [name, type === "address" ? hex(0, 20) : type === "bytes32" ? hex(0, 32) : 0n]),
);
const greatest = Object.fromEntries(
  QUOTE.map(([type, name]) => {
    if (type === "address") return [name, hex(max(160), 20)];
    if (type === "bytes32") return [name, hex(max(256), 32)];
    return [name, max(type.slice(4))];
  }),
);
const usual = {
  provider: "0x70997970c51812dc3a010c7d01b50e0d17dc79c8",
  account: `0x${hash("an account").toString("hex")}`,
  lease: 0n,
  pod: `0x${hash("a pod").toString("hex")}`,
  rate: 2_777_777_777n,
  lock: 3_600n,
  coverage: 20_000_000n,
  grace: 60n,
  full: 3_600n,
  response: 300n,
  notice: 86_400n,
  startWithin: 120n,
  expiry: 1_800_000_060n,
  version: 3n,
  nonce: 0x726f616473746561n,
};
const local = { chainId: 31_337n, leases: "0x149c93d5d5f2303ad3dda33beec3babb3451af7a" };
const elsewhere = { chainId: max(53), leases: "0xffffffffffffffffffffffffffffffffffffffff" };
const quotes = [
  ["nothing", local, zero],
  ["a usual one", local, usual],
  ["the same on another chain", { ...local, chainId: 1n }, usual],
  ["the same of another contract", { ...local, leases: elsewhere.leases }, usual],
  ["an amendment for any account", local, { ...usual, lease: 7n, account: zero.account }],
  ["the greatest of all", elsewhere, greatest],
  // One field at a time, so that two that changed places are found.
  ...QUOTE.map(([, name]) => [`only ${name}`, local, { ...zero, [name]: greatest[name] }]),
].map(([name, domain, quote]) => ({ name, ...domain, quote, digest: digest(domain, quote) }));

// Writing --------------------------------------------------------------------------------------------------------------

// What can be above 2^53 is a decimal string; in the clock, times and locks are numbers, in a quote nothing is.
const plain = (numbers) => (key, value) => {
  if (typeof value !== "bigint") return value;
  return numbers.includes(key) ? Number(value) : value.toString();
};
const step = (value) => JSON.stringify(value, plain(["time", "lock", "clock", "fundedUntil"]));
const quote = (value) => JSON.stringify(value, plain(["chainId"]));

const clock = cases
  .map(({ name, steps }) => `  {"name": ${step(name)}, "steps": [\n    ${steps.map(step).join(",\n    ")}\n  ]}`)
  .join(",\n");
// The curve ------------------------------------------------------------------------------------------------------------

const MOST = max(128);
const LONGEST = max(24);
const COVERAGE = 20_000_000n;

function due({ coverage, duration, grace, full }) {
  if (full === 0n || duration <= grace) return 0n;
  if (duration >= full) return coverage;
  return (coverage * (duration - grace) ** 2n) / (full - grace) ** 2n;
}

const edges = [
  ["nothing by reports", COVERAGE, 1_000_000n, 0n, 0n],
  ["no outage", COVERAGE, 0n, 60n, 3_600n],
  ["within grace", COVERAGE, 59n, 60n, 3_600n],
  ["grace to the second", COVERAGE, 60n, 60n, 3_600n],
  ["a second beyond grace", COVERAGE, 61n, 60n, 3_600n],
  ["half way", COVERAGE, 1_830n, 60n, 3_600n],
  ["a second before full", COVERAGE, 3_599n, 60n, 3_600n],
  ["full to the second", COVERAGE, 3_600n, 60n, 3_600n],
  ["beyond full", COVERAGE, FOREVER, 60n, 3_600n],
  ["no grace, a second", COVERAGE, 1n, 0n, 3_600n],
  ["no grace, half", COVERAGE, 1_800n, 0n, 3_600n],
  ["a full of one second", COVERAGE, 1n, 0n, 1n],
  ["a second apart, grace", COVERAGE, 100n, 100n, 101n],
  ["a second apart, full", COVERAGE, 101n, 100n, 101n],
  ["the longest full, half", COVERAGE, 1n << 23n, 0n, LONGEST],
  ["the longest full, a second before", COVERAGE, LONGEST - 1n, 0n, LONGEST],
  ["the longest grace", COVERAGE, LONGEST, LONGEST - 1n, LONGEST],
  ["no coverage", 0n, 1_830n, 60n, 3_600n],
  ["one base unit, a second before full", 1n, 3_599n, 60n, 3_600n],
  ["one base unit, full", 1n, 3_600n, 60n, 3_600n],
  ["all there can be, half way", MOST, 1_830n, 60n, 3_600n],
  ["all there can be, a second of the longest", MOST, 1n, 0n, LONGEST],
  ["all there can be, a second before the longest", MOST, LONGEST - 1n, 0n, LONGEST],
  ["all there can be, full", MOST, 3_600n, 60n, 3_600n],
].map(([name, coverage, duration, grace, full]) => ({ name, coverage, duration, grace, full }));
// And forty in between, the same in every run.
let state = 7n;
const draw = (below) => {
  state = (state * 6_364_136_223_846_793_005n + 1_442_695_040_888_963_407n) & max(64);
  return (state >> 11n) % below;
};
const drawn = Array.from({ length: 40 }, (_, i) => {
  const full = 1n + draw(1n << (1n + draw(23n)));
  const grace = draw(full);
  const coverage = draw(1n << (1n + draw(52n))) << draw(76n);
  return { name: `drawn ${i}`, coverage, duration: draw(full + full / 4n + 2n), grace, full };
});
const curve = [...edges, ...drawn].map((one) => {
  const fields = Object.entries({ ...one, due: due(one) }).map(([key, value]) => `"${key}": "${value}"`);
  return `  {${fields.join(", ")}}`;
});

writeFileSync(new URL("curve.json", import.meta.url), `{"cases": [\n${curve.join(",\n")}\n]}\n`);
writeFileSync(new URL("clock.json", import.meta.url), `{"cases": [\n${clock}\n]}\n`);
writeFileSync(new URL("quote.json", import.meta.url), `{"cases": [\n  ${quotes.map(quote).join(",\n  ")}\n]}\n`);
