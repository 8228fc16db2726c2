"""Compares the tiers of pickles with what pickletools, picklescan, modelscan and fickling see. Run by hand, nothing is loaded.

    python -m venv SCANNERS && SCANNERS/bin/pip install picklescan==1.0.5 modelscan==0.8.8 fickling==0.1.12 typing_extensions
    MALICIOUS_FOLDER=TABLE cargo test -p checkpoint-operator --lib the_table_can_be_written
    SCANNERS/bin/python e2e/python/pickle_oracle.py target/debug/checkpoint-operator TABLE e2e/fixtures

For each file: what a list of opcodes shows, what each scanner says, and the tier that `checkpoint-operator inspect` gives its
folder. The program fails when a scanner calls a file dangerous that we would accept by default. It also prints what is on a
scanner's deny-list and not Dangerous here (whole modules of which ours lists the dangerous names; the rest is Code). fickling counts as saying so from "likely overtly malicious" on: below that it flags every import outside of the
standard library, torch's own among them.
"""

import io
import json
import logging
import pickletools
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

logging.disable(logging.CRITICAL)

from fickling.analysis import Severity, UnsafeImportsML, check_safety
from fickling.fickle import UNSAFE_IMPORTS, StackedPickle
from modelscan.modelscan import ModelScan
from modelscan.settings import DEFAULT_SETTINGS
from picklescan.scanner import SafetyLevel, _unsafe_globals, scan_file_path

# What is on a deny-list as part of a whole module and is data, whatever its arguments; or is judged by what it loads.
EXPLAINED = {
    "torch.storage._load_from_bytes": "the bytes that it loads stand in the stream and are judged",
    "torch.jit._pickle.build_intlist": "it returns the list that it is given",
}


def streams(path):
    """The pickles of a file: itself, or the entries of an archive."""
    data = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [archive.read(name) for name in archive.namelist() if not name.endswith("/")]
    except Exception:
        return [data]


def listed(path):
    """The imports that a mere list of opcodes shows."""
    found = set()
    for data in streams(path):
        texts = []
        try:
            for opcode, argument, _ in pickletools.genops(data):
                if opcode.name in ("GLOBAL", "INST"):
                    found.add(argument.replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":
                    found.add(".".join(texts[-2:]) or "?")
                elif isinstance(argument, str):
                    texts.append(argument)
        except Exception:
            pass
    return found


def picklescan(path):
    try:
        result = scan_file_path(str(path))
    except Exception:
        return "error"
    if result.issues_count:
        return "dangerous"
    if any(found.safety == SafetyLevel.Suspicious for found in result.globals):
        return "suspicious"
    return "error" if result.scan_err else "clean"


def modelscan(path):
    try:
        result = ModelScan(settings=DEFAULT_SETTINGS).scan(str(path))
    except Exception:
        return "error"
    return "dangerous" if result["summary"]["total_issues"] else "error" if result["errors"] else "clean"


def fickling(path):
    worst = None
    for data in streams(path):
        try:
            for pickled in StackedPickle.load(io.BytesIO(data), fail_on_decode_error=False):
                severity = check_safety(pickled).severity
                worst = severity if worst is None or severity > worst else worst
        except Exception:
            continue
    if worst is None:
        return "error"
    if worst >= Severity.LIKELY_OVERTLY_MALICIOUS:
        return "dangerous"
    return "clean" if worst == Severity.LIKELY_SAFE else "suspicious"


def tier(program, name, data):
    """The tier of a file by itself: other files of its folder must not count."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(data)
        output = subprocess.run([program, "inspect", folder, "-o", "json"], capture_output=True, text=True).stdout
    report = json.loads(output)
    return (report.get("contents") or {}).get("pickle") or "None"


def deny_lists():
    """Every name on a scanner's list, as module and name (`*` for all)."""
    for module, names in _unsafe_globals.items():
        yield from ((module, name) for name in ([names] if isinstance(names, str) else names))
    for level in DEFAULT_SETTINGS["unsafe_globals"].values():
        for module, entries in level.items():
            yield from ((module, name) for name in ([entries] if isinstance(entries, str) else entries))
    for module in UNSAFE_IMPORTS:
        yield module, "*"
    for module in UnsafeImportsML.UNSAFE_MODULES:
        yield module, "*"


def main(program, table, fixtures):
    rows = [line.split("\t") for line in (Path(table) / "table.tsv").read_text().splitlines()]
    files = [(row[3], Path(table) / row[0] / row[1]) for row in rows]
    for path in sorted(Path(fixtures).rglob("*")):
        if path.is_file() and path.suffix not in (".py", ".md", ".txt", ".json"):
            files.append((str(path.relative_to(fixtures)), path))
    counts, wrong = {}, []
    for name, path in files:
        seen = {scanner.__name__: scanner(path) for scanner in (picklescan, modelscan, fickling)}
        ours = tier(program, path.name, path.read_bytes())
        flagged = [scanner for scanner, verdict in seen.items() if verdict == "dangerous"]
        explained = flagged and listed(path) & EXPLAINED.keys()
        if flagged and ours not in ("Code", "Dangerous", "Unchecked"):
            (wrong if not explained else counts.setdefault("explained", [])).append(name)
        for scanner, verdict in seen.items():
            key = (scanner, verdict, ours)
            counts[key] = counts.get(key, 0) + 1
        print(f"{name:60} {ours:12} " + "  ".join(f"{scanner} {verdict}" for scanner, verdict in seen.items()))
    print("\nscanner      verdict      tier          files")
    for key in sorted(key for key in counts if isinstance(key, tuple)):
        print(f"{key[0]:12} {key[1]:12} {key[2]:12} {counts[key]:6}")
    print("explained:", counts.get("explained", []))
    missing = []
    for module, entry in sorted(set(deny_lists())):
        pickle = f"c{module}\n{'marker' if entry == '*' else entry}\n.".encode()
        if tier(program, "a.pkl", pickle) != "Dangerous":
            missing.append(f"{module} {entry}")
    print("on a deny-list and not Dangerous to us:", missing)
    print(f"{len(files)} files; dangerous to a scanner and less than Code to us: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
