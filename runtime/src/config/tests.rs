use std::io::Write;

use super::*;

#[derive(Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    memory_limit: ByteSize,
    scan_every: HumanDuration,
}

#[test]
fn a_file_is_read_with_sizes_and_durations() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "memory-limit = \"512 MiB\"\nscan-every = \"1h30m\"").unwrap();
    let options: Options = load(file.path()).unwrap();
    assert_eq!(options.memory_limit, ByteSize::mib(512));
    assert_eq!(options.scan_every.get(), Duration::from_secs(5_400));
    let again: Options = parse(&toml::to_string(&options).unwrap(), file.path()).unwrap();
    assert_eq!(again, options);
}

#[test]
fn an_error_names_the_file_the_line_and_what_to_do() {
    let path = Path::new("worker.toml");
    let error = parse::<Options>("memory-limit = 5\nscan-evry = \"5m\"\n", path).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("worker.toml:2:1: unknown field `scan-evry`"), "{text}");
    assert!(text.contains("--dump-config"), "{text}");
    let text = parse::<Options>("memory-limit = \"5 potatoes\"", path).unwrap_err().to_string();
    assert!(text.contains("worker.toml:1:16") && text.contains("is not a size"), "{text}");
    let error = load::<Options>(Path::new("/nonexistent/worker.toml")).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/worker.toml"));
    assert_eq!(error.exit().code(), 64);
}

#[test]
fn sizes_are_read_and_written() {
    for (text, bytes) in [("0", 0), ("64MiB", 64 << 20), ("10 gb", 10_000_000_000), ("7B", 7), ("1KiB", 1024)]
    {
        assert_eq!(text.parse::<ByteSize>().unwrap().bytes(), bytes, "{text}");
    }
    for text in ["", "MiB", "-1", "1.5GiB", "99999999999TiB", "1 MiB extra"] {
        assert!(text.parse::<ByteSize>().is_err(), "{text}");
    }
    assert_eq!(ByteSize::mib(1536).to_string(), "1536MiB");
    assert_eq!(ByteSize(1000).to_string(), "1000B");
}

#[test]
fn durations_are_read_and_written() {
    for (text, ms) in [("500ms", 500), ("30s", 30_000), ("1d 2h", 93_600_000), ("0s", 0)] {
        assert_eq!(text.parse::<HumanDuration>().unwrap().get(), Duration::from_millis(ms), "{text}");
    }
    for text in ["", "5", "s", "5m5h", "1s1s", "9999999999999999d", "5 µs"] {
        assert!(text.parse::<HumanDuration>().is_err(), "{text}");
    }
    assert_eq!(HumanDuration::millis(5_400_000).to_string(), "1h30m");
    assert_eq!(HumanDuration::millis(61_001).to_string(), "1m1s1ms");
}
