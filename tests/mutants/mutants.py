#!/usr/bin/env python3
"""Finds changes of the source that no test notices. `just mutants` runs it; CONTRIBUTING.md says how to read it.

cargo-mutants lists the changes, and a fixed seed samples them. Building the tests once for each would take a day, so all
stand in one copy of the source (target/mutants/tree), each behind a switch: `a < b` becomes
`(if crate::mutants::on(17) { a <= b } else { a < b })`. FEDMILL_MUTANT=17 turns one on. One run of each test shows which
changes it reaches. Then each change meets the tests that reach it, fastest first, until one fails.
"""

import argparse
import collections
import concurrent.futures
import hashlib
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import tempfile
import time
import tomllib

import tree_sitter
import tree_sitter_rust

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "target/mutants"
TREE = WORK / "tree"
ROOMS = "rules strategies codecs privacy budget io modes kernels".split()
# build.rs shares this file, and has no switches.
SHARED = {"src/kernels/network.rs"}
# How many changes of each kind are sampled, boundaries and margins first.
QUOTA = {"boundary": 150, "comparison": 70, "margin": 100, "arithmetic": 70, "other": 60}
# Tests that start the GPU, Slurm, browsers, Python, shells, engines or simulators, or run long; and those that judge the
# source, which a copy with switches cannot pass.
LEFT_OUT = ("gpu::", "monitoring::", "slurm", "client_program", "endpoints", "simulator", "engines", "mutations::",
            "architecture::", "shells::", "snakemake", "hyperqueue")
# The least seconds a test may take with a change, and the seconds of tests after which a change counts as survived.
LEAST_TIMEOUT, PATIENCE = 20, 150

SWITCH = """//! Switches of mutants.
#![allow(missing_docs)]
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
const TRACED: u32 = u32::MAX - 1;
static ACTIVE: AtomicU32 = AtomicU32::new(u32::MAX);
static SEEN: [AtomicBool; COUNT] = [const { AtomicBool::new(false) }; COUNT];
#[inline(always)]
pub fn on(number: u32) -> bool {
    let active = ACTIVE.load(Relaxed);
    if active < TRACED { active == number } else { slow(number) }
}
#[cold]
#[inline(never)]
fn slow(number: u32) -> bool {
    let trace = std::env::var_os("FEDMILL_MUTANT_TRACE");
    let asked = std::env::var("FEDMILL_MUTANT").ok().and_then(|text| text.parse().ok());
    let active = asked.unwrap_or(if trace.is_some() { TRACED } else { 0 });
    ACTIVE.store(active, Relaxed);
    if let (TRACED, Some(path)) = (active, trace)
        && !SEEN[number as usize].swap(true, Relaxed)
        && let Ok(mut file) = std::fs::File::options().append(true).create(true).open(path)
    {
        let _ = std::io::Write::write_all(&mut file, format!("{number}\\n").as_bytes());
    }
    active == number
}
"""


class Source:
    """A file of the source and its syntax."""

    def __init__(self, name):
        self.text = (ROOT / name).read_bytes()
        self.lines = self.text.split(b"\n")
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line) + 1)
        parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_rust.language()))
        self.tree = parser.parse(self.text)

    def offset(self, place):
        """The byte of a line and column, which cargo-mutants counts from 1 in characters."""
        line = self.lines[place["line"] - 1].decode()
        return self.starts[place["line"] - 1] + len(line[: place["column"] - 1].encode())

    def slice(self, start, end):
        return self.text[start:end].decode()


class Mutant:
    """A change. `span` is what the switch wraps, empty where it is put in front; `code` is what stands there instead."""

    def __init__(self, source, listed, operator=None):
        self.file, self.genre = listed["file"], listed["genre"]
        self.function = (listed["function"] or {}).get("function_name", "")
        start, end = source.offset(listed["span"]["start"]), source.offset(listed["span"]["end"])
        node = source.tree.root_node.descendant_for_byte_range(start, end)
        new = operator or listed["replacement"]
        self.kind, self.span, self.form = "other", None, "if"
        old = source.slice(start, end)
        if self.genre == "BinaryOperator":
            node = node.parent
            if node is not None and node.type in ("binary_expression", "compound_assignment_expr"):
                left, right = (source.slice(n.start_byte, n.end_byte) for n in (node.children[0], node.children[-1]))
                self.code = f"({left}) {new} ({right})" if node.type[0] == "b" else f"{left} {new} ({right})"
                self.span = (node.start_byte, node.end_byte)
                self.kind = kind_of(old, new, left, right)
        elif self.genre == "UnaryOperator":
            node = node.parent
            self.code, self.span, self.kind = source.slice(end, node.end_byte), (start, node.end_byte), "arithmetic"
        elif self.genre == "FnValue":
            # All returns of `impl Trait` must have one type.
            opaque = "impl " in listed["function"]["return_type"]
            self.code, self.span, self.form = f"return {new};", None if opaque else (start, start), "front"
        elif self.genre == "MatchArmGuard":
            self.code, self.span = new, (start, end)
        elif self.genre == "MatchArm":
            while node.type != "match_arm":
                node = node.parent
            pattern = node.child_by_field_name("pattern")
            guard = pattern.child_by_field_name("condition")
            self.code, self.form = "", "guard" if guard else "arm"
            self.span = (guard.start_byte, guard.end_byte) if guard else (pattern.end_byte, pattern.end_byte)
        elif self.genre == "StructField":
            while node.type != "struct_expression":
                node = node.parent
            rest = source.slice(end, node.end_byte).lstrip().removeprefix(",")
            self.code, self.span = source.slice(node.start_byte, start) + rest, (node.start_byte, node.end_byte)
        while node is not None and self.span:
            in_const = node.type in ("const_item", "static_item", "array_type", "const_block", "enum_variant")
            if in_const or node.type == "function_item" and b" const " in b" " + node.text[: node.text.find(b"fn ")]:
                self.span = None
            node = node.parent
        shown = source.slice(*self.span) if self.span and self.span[0] < self.span[1] else old
        shown = "body" if self.form == "front" else " ".join(shown.split())
        self.key = f"{self.file} {self.function}: `{shown[:90]}`: {old if len(old) < 4 else self.genre} -> {new}"


def kind_of(old, new, left, right):
    if {old, new} in ({"<", "<="}, {">", ">="}):
        return "boundary"
    if old in ("<", "<=", ">", ">=", "==", "!="):
        return "comparison"
    return "margin" if old in "+-" and (left.isdecimal() or right.isdecimal()) else "arithmetic"


def listed():
    """What cargo-mutants lists, kept until the source changes; and `<=` for `<`, which it never makes of `<=`."""
    sources = sorted(path for room in ROOMS for path in (ROOT / "src" / room).rglob("*.rs"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    kept = WORK / f"list-{digest[:16]}.json"
    if not kept.exists():
        command = ["cargo", "mutants", "--list", "--json"]
        for room in ROOMS:
            command += ["--file", f"src/{room}/**"]
        kept.write_bytes(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    return [entry for entry in json.loads(kept.read_bytes()) if entry["file"] not in SHARED]


def sampled(scale):
    """The sample: of each kind the changes with the lowest digests, so that an edit elsewhere moves none of them."""
    entries, sources, kinds, seen = listed(), {}, collections.defaultdict(list), collections.Counter()
    for entry in entries:
        source = sources.setdefault(entry["file"], None) or Source(entry["file"])
        sources[entry["file"]] = source
        place = entry["span"]
        old = source.slice(source.offset(place["start"]), source.offset(place["end"]))
        twin = {"<=": "<", ">=": ">"}.get(old)
        for operator in [None] + ([twin] if twin else []):
            mutant = Mutant(source, entry, operator)
            seen[mutant.key] += 1
            mutant.key += f" (number {seen[mutant.key]})" if seen[mutant.key] > 1 else ""
            kinds[mutant.kind].append(mutant)
    sample = []
    for kind, quota in QUOTA.items():
        kinds[kind].sort(key=lambda mutant: hashlib.sha256(f"fedmill {mutant.key}".encode()).digest())
        sample += kinds[kind][: round(quota * scale)]
    print(f"{sum(map(len, kinds.values()))} mutants, {len(sample)} sampled")
    for number, mutant in enumerate(sample, 1):
        mutant.number, mutant.why_out = number, None if mutant.span else "no switch fits"
    return sample, sources


def rendered(source, mutants):
    """The text with switches, and the byte range of each switch and of the code behind it."""
    spans = collections.defaultdict(list)
    for mutant in mutants:
        spans[mutant.span, mutant.form].append(mutant)
    spans = sorted(spans.items(), key=lambda item: (item[0][0][0], item[0][0][1] > item[0][0][0], -item[0][0][1]))
    out, ranges = bytearray(), []

    def write(start, end, inside):
        at = start
        while inside:
            ((first, last), form), here = inside.pop(0)
            within = []
            while inside and inside[0][0][0][1] <= last and first < last:
                within.append(inside.pop(0))
            out.extend(source.text[at:first])
            begin, at = len(out), last
            off = " && ".join(f"!crate::mutants::on({mutant.number})" for mutant in here)
            if form in ("arm", "guard"):
                out.extend(f" if {off}".encode() if form == "arm" else f"{off} && (".encode())
            for mutant in here if form in ("if", "front") else []:
                out.extend(f"{'(' if form == 'if' and mutant is here[0] else ''}if crate::mutants::on({mutant.number}) {{".encode())
                code = len(out)
                out.extend(mutant.code.encode())
                ranges.append((code, len(out), [mutant]))
                out.extend(b" } else " if form == "if" else b" } ")
            if first < last:
                out.extend(b"{ " if form == "if" else b"")
                write(first, last, within)
                out.extend(b" })" if form == "if" else b")")
            ranges.append((begin, len(out), here))
        out.extend(source.text[at:end])

    write(0, len(source.text), spans)
    return bytes(out), ranges


def write_if_new(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != data:
        path.write_bytes(data)


def write_tree(sample, sources):
    """Writes the copy with all switches. Returns the ranges of switches by file."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True,
                            stdout=subprocess.PIPE).stdout.decode().split("\0")
    names = {name for name in listed if name and (ROOT / name).is_file()}
    for old in TREE.rglob("*.rs"):
        if str(old.relative_to(TREE)) not in names | {"src/mutants.rs"}:
            old.unlink()
    ranges = {}
    for name in names:
        data = (ROOT / name).read_bytes()
        inside = [mutant for mutant in sample if mutant.file == name and not mutant.why_out]
        if inside:
            data, ranges[name] = rendered(sources[name], inside)
        write_if_new(TREE / name, data + (b"pub mod mutants;\n" if name == "src/lib.rs" else b""))
        shutil.copymode(ROOT / name, TREE / name)
    write_if_new(TREE / "src/mutants.rs", SWITCH.replace("COUNT", str(len(sample) + 1)).encode())
    return ranges


def cargo(*arguments):
    # Tests that start a GPU are left out, and its crates are half of the build.
    command = ["cargo", *arguments, "--profile", "mutants", "--no-default-features", "--message-format", "json"]
    environment = dict(os.environ, CARGO_TARGET_DIR=str(WORK / "build"))
    done = subprocess.run(command, cwd=TREE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return done, [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]


def build(sample, sources):
    """Builds the copy, without the changes that do not compile. Returns the programs of tests by name."""
    while True:
        ranges = write_tree(sample, sources)
        done, messages = cargo("build", "--lib")
        errors = [m["message"] for m in messages if m["reason"] == "compiler-message" and m["message"]["level"] == "error"]
        dropped = 0
        for error in errors:
            places = sorted(error["spans"], key=lambda span: not span["is_primary"])
            for place in places:
                around = [r for r in ranges.get(place["file_name"], []) if r[0] <= place["byte_start"] < r[1]]
                if around:
                    for mutant in min(around, key=lambda r: r[1] - r[0])[2]:
                        dropped += mutant.why_out is None
                        mutant.why_out = "does not compile"
                    break
        if not errors and done.returncode == 0:
            break
        if not dropped:
            raise SystemExit("\n".join(e.get("rendered") or e["message"] for e in errors) + done.stderr.decode()[-3000:])
        print(f"{dropped} mutants do not compile")
    done, messages = cargo("test", "--no-run", "--lib", "--bins", "--test", "integration")
    if done.returncode:
        texts = [m["message"]["rendered"] for m in messages if m["reason"] == "compiler-message"]
        raise SystemExit("\n".join(texts) + done.stderr.decode()[-3000:])
    return {m["target"]["kind"][0]: m["executable"] for m in messages
            if m.get("executable") and m["profile"]["test"] and m["target"]["kind"][0] != "bin"}


def limits():
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 30, 4 << 30))
    resource.setrlimit(resource.RLIMIT_DATA, (6 << 30, 6 << 30))


def run_test(programs, test, limit, **variables):
    """Runs one test. Returns whether it passed, and its seconds."""
    kind, name = test.split(" ", 1)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fedmill-mutant-", ignore_cleanup_errors=True) as folder:
        environment = dict(os.environ, TMPDIR=folder, FEDMILL_SEEDS="40", **variables)
        process = subprocess.Popen([programs[kind], "--exact", name], cwd=TREE, env=environment, start_new_session=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   preexec_fn=limits)
        try:
            passed = process.wait(limit) == 0
        except subprocess.TimeoutExpired:
            passed = None
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
    return passed, time.monotonic() - begin


def traced(programs, test, sample):
    """Which changes a test reaches, and its seconds; whether it passes without a change."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "trace"
        passed, seconds = run_test(programs, test, 600, FEDMILL_MUTANT_TRACE=str(path))
        numbers = {int(line) for line in path.read_text().split()} if path.exists() else set()
    if not passed:
        # It may have failed for the file of the trace alone.
        passed, seconds = run_test(programs, test, 600)
    return {"passed": passed, "seconds": seconds, "reaches": sorted(sample[n - 1].key for n in numbers)}


def judge(programs, mutant, tests):
    """Runs the tests that reach a change, those of its own file first. Returns its killer, if there is one."""
    room = mutant.file.removeprefix("src/").removesuffix(".rs").removesuffix("/mod").replace("/", "::")
    reaching = [test for test, found in tests.items() if found["passed"] and mutant.key in found["reaches"]]
    reaching.sort(key=lambda test: (not test.startswith(f"lib {room}::"), tests[test]["seconds"]))
    spent = 0
    for tried, test in enumerate(reaching):
        if spent > PATIENCE:
            return {"outcome": "survived", "reaching": len(reaching), "tried": tried}
        limit = max(LEAST_TIMEOUT, 6 * tests[test]["seconds"])
        passed, seconds = run_test(programs, test, limit, FEDMILL_MUTANT=str(mutant.number))
        if passed is False:
            # A test that fails by chance kills no mutant.
            passed, _ = run_test(programs, test, limit, FEDMILL_MUTANT=str(mutant.number))
        if not passed:
            return {"outcome": "killed", "by": test, "reaching": len(reaching)}
        spent += seconds
    return {"outcome": "survived" if reaching else "not reached", "reaching": len(reaching), "tried": len(reaching)}


def tests_of(kind, program):
    """The names of a program's tests, behind its kind."""
    listed = subprocess.run([program, "--list", "--format", "terse"], cwd=TREE, check=True, text=True, stdout=subprocess.PIPE)
    return [f"{kind} {line.removesuffix(': test')}" for line in listed.stdout.splitlines() if line.endswith(": test")]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--scale", type=float, default=1, help="multiple of the sample of 450")
    options.add_argument("--again", action="store_true", help="run only tests that are new and mutants that lived")
    options.add_argument("--skip", default="", help="more tests to leave out: parts of their names, behind commas")
    options.add_argument("--jobs", type=int, default=os.cpu_count())
    options = options.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    sample, sources = sampled(options.scale)
    state, uncompiled = WORK / "state.json", WORK / "uncompiled.json"
    last = json.loads(state.read_text()) if options.again and state.exists() else {"tests": {}, "mutants": {}}
    known = json.loads(uncompiled.read_text()) if uncompiled.exists() else []
    for mutant in sample:
        mutant.why_out = mutant.why_out or ("does not compile" if mutant.key in known else None)
    programs = build(sample, sources)
    uncompiled.write_text(json.dumps([m.key for m in sample if m.why_out == "does not compile"], indent=1))
    left_out = [*LEFT_OUT, *filter(None, options.skip.split(","))]
    tests, mutants = {}, {m.key: last["mutants"].get(m.key, {}) for m in sample if not m.why_out}
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        # Unit tests first: what they kill meets no slower test.
        for kind in ("lib", "test"):
            names = [name for name in tests_of(kind, programs[kind]) if not any(part in name for part in left_out)]
            found = {name: last["tests"][name] for name in names if name in last["tests"]}
            new = [name for name in names if name not in found]
            found.update(zip(new, pool.map(lambda name: traced(programs, name, sample), new)))
            failed = [name for name in names if not found[name]["passed"]]
            print(f"{len(found)} tests of `{kind}`; in the copy fail {failed}", flush=True)
            tests.update(found)
            left = [mutant for mutant in sample if mutants.get(mutant.key, {}).get("outcome", "") != "killed" and not mutant.why_out]
            for mutant, outcome in zip(left, pool.map(lambda mutant: judge(programs, mutant, found), left)):
                before = mutants[mutant.key]
                if outcome["outcome"] != "not reached" or not before:
                    mutants[mutant.key] = outcome
            state.write_text(json.dumps({"tests": tests, "mutants": mutants}, indent=1))
    report(sample, mutants)


def report(sample, mutants):
    kept = tomllib.loads((pathlib.Path(__file__).parent / "equivalent.toml").read_text())["equivalent"]
    reasons = {entry["mutant"]: entry["reason"] for entry in kept}
    out = collections.Counter(mutant.why_out for mutant in sample if mutant.why_out)
    outcomes = collections.Counter(found["outcome"] for found in mutants.values())
    lived = [key for key, found in mutants.items() if found["outcome"] != "killed"]
    equivalent = [key for key in lived if key in reasons]
    share = outcomes["killed"] / max(1, len(mutants) - len(equivalent))
    for mutant in sample:
        if mutant.key in lived and mutant.key not in reasons:
            print(f"{mutant.number}, {mutants[mutant.key]}: {mutant.key}")
    print(f"{len(sample)} sampled; left out: {dict(out)}; {len(mutants)} run: {dict(outcomes)}; "
          f"{len(equivalent)} of them equivalent; {100 * share:.1f} % of the others killed")
    for key in reasons:
        if mutants.get(key, {}).get("outcome") == "killed":
            print(f"killed, although equivalent.toml lists it: {key}")
    raise SystemExit(any(key not in reasons for key in lived))


if __name__ == "__main__":
    main()
