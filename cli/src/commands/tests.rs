//! The command line as it is written down: every example in a help text, and every command in the operator's documents, parses.

use std::path::Path;

use clap::{Command, CommandFactory as _, Parser as _};

use super::Arguments;

/// Every command that does something, with its name from the root on.
fn leaves() -> Vec<(String, Command)> {
    fn collect(command: &Command, name: &str, found: &mut Vec<(String, Command)>) {
        if !command.has_subcommands() {
            found.push((name.to_owned(), command.clone()));
        }
        for child in command.get_subcommands() {
            collect(child, &format!("{name} {}", child.get_name()), found);
        }
    }
    let mut found = Vec::new();
    collect(&Arguments::command(), "holdfast", &mut found);
    found
}

/// The commands of a text: lines that begin with `holdfast `, with their continuations, without comments.
fn commands(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let typed = joined.lines().map(str::trim).filter(|line| line.starts_with("holdfast "));
    let without_comment = |line: &str| {
        let end = ["  #", " #"].iter().filter_map(|mark| line.find(mark)).min().unwrap_or(line.len());
        line[..end].trim().trim_end_matches('&').trim().to_owned()
    };
    typed.map(without_comment).collect()
}

fn parses(command: &str) -> Result<(), String> {
    Arguments::try_parse_from(command.split_whitespace())
        .map(drop)
        .map_err(|error| format!("{command}: {error}"))
}

#[test]
fn the_command_line_is_well_formed() {
    Arguments::command().debug_assert();
}

#[test]
fn every_command_has_an_example_that_parses() {
    let leaves = leaves();
    assert!(leaves.len() >= 20, "{} commands", leaves.len());
    for (name, command) in leaves {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let (_, examples) =
            help.split_once("Examples:").unwrap_or_else(|| panic!("`{name} --help` has no Examples:"));
        let examples = examples.replace("\\\n", " ");
        let typed: Vec<&str> = examples.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        assert!(!typed.is_empty(), "`{name} --help` has no example");
        for example in typed {
            assert!(example.starts_with(&name), "`{name} --help` shows another command: {example}");
            // What stands two blanks behind a command is its explanation, unless it goes on with an option.
            let end =
                example.match_indices("  ").find(|(at, _)| !example[*at..].trim_start().starts_with('-'));
            let command = end.map_or(example, |(at, _)| &example[..at]);
            parses(command).unwrap();
        }
    }
}

#[test]
fn every_command_in_the_documents_parses() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut documents = vec![root.join("README.md")];
    documents.extend(std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    let mut found = 0;
    for document in documents.iter().filter(|path| path.extension().is_some_and(|kind| kind == "md")) {
        for command in commands(&std::fs::read_to_string(document).unwrap()) {
            parses(&command).unwrap_or_else(|error| panic!("{}: {error}", document.display()));
            found += 1;
        }
    }
    assert!(found >= 20, "only {found} commands were found in the documents");
}

#[test]
fn a_limit_of_nothing_is_wrong_usage() {
    for command in [
        "holdfast browse S --limit 0",
        "holdfast jobs --newest 0",
        "holdfast audit --newest 0",
        "holdfast search contoso x --limit 0",
    ] {
        let refused = Arguments::try_parse_from(command.split_whitespace()).unwrap_err();
        assert_eq!(refused.exit_code(), 2, "{command}");
        assert!(refused.to_string().contains("0 is not in 1.."), "{refused}");
    }
}
