//! Small inputs, such as lists, tables and settings: devices and large files in their place.

use crate::bad_request::round;
use crate::harness::{fedmill, fedmill_after};
use std::fs::File;

/// Small inputs have a limit: a device without an end, or a large file by mistake, does not fill the memory.
#[test]
fn inputs_without_end_are_refused() {
    let dir = round();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let init = "privacy init dp --population 100 --epsilon 50 --delta 1e-3 --noise-multiplier 2 --rounds 9 --clip 1 \
                --denominator 3 --base base.safetensors";
    assert_eq!(fedmill(&dir, &words(init).iter().map(String::as_str).collect::<Vec<_>>()).code, Some(0));
    File::create(dir.path("large")).unwrap().set_len((1 << 28) + 1).unwrap();
    for line in [
        "aggregate updates -o m.safetensors --weights @",
        "aggregate -o m.safetensors --files-from @",
        "aggregate updates -o m.safetensors --tiers @",
        "combine updates --base base.safetensors --shard 1/1 -o m.safetensors --decision @",
        "privacy spend dp --event @",
        "privacy compose --delta 1e-5 --events @",
        "agents add s @",
        "agents new s a --from @",
        "plan metrics @",
    ] {
        for (input, found) in [
            ("/dev/zero", "found more than 268435456 bytes"),
            ("large", "found 268435457 bytes"),
            ("- </dev/zero", "found more than 268435456 bytes"),
        ] {
            if line.contains("--decision") && input == "large" {
                continue;
            }
            let (path, from) = input.split_once(' ').unwrap_or((input, "</dev/null"));
            let arguments = words(&line.replace('@', path));
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            // Less than a reader without a limit takes.
            let run = fedmill_after(&dir, &format!("ulimit -v 6000000 && exec {from}"), &arguments);
            assert_eq!(run.code, Some(2), "{line} {input}: {run:#?}");
            let named = if path == "-" { found } else { path };
            assert!(
                run.stderr.contains(named) && run.stderr.contains(found),
                "{line} {input}: {}",
                run.stderr
            );
            assert!(run.stderr.contains("expected at most 268435456"), "{line} {input}: {}", run.stderr);
        }
    }
    for format in ["csv", "json", "jsonl"] {
        let import = ["clients", "import", "s", "-", "--format", format];
        let run = fedmill_after(&dir, "ulimit -v 6000000 && exec </dev/zero", &import);
        assert_eq!(run.code, Some(2), "{format}: {run:#?}");
        assert!(
            run.stderr.contains("1048576 bytes") || run.stderr.contains("line 1"),
            "{format}: {}",
            run.stderr
        );
    }
}
