//! The overview of `clipood --help`: commands in groups, which clap supports for options only.

use clap::Command;

/// Headings with their commands, in the order of the overview. Every command must be listed here.
pub const GROUPS: [(&str, &[&str]); 6] = [
    (
        "Run a recipe",
        &[
            "run", "recipes", "schema", "data", "plan", "worker", "submit",
        ],
    ),
    (
        "Look at a run",
        &["report", "compare", "status", "explain", "gc"],
    ),
    (
        "Single images",
        &[
            "zero-shot",
            "threshold",
            "detect",
            "similarity",
            "search",
            "regions",
        ],
    ),
    ("Train a model", &["finetune"]),
    ("Bring your own arrays", &["score", "metrics", "detectors"]),
    (
        "Plumbing",
        &[
            "encode",
            "preprocess",
            "tokenize",
            "prompt",
            "bench",
            "completions",
            "man",
        ],
    ),
];

/// The command with the grouped overview as its help; the help of subcommands is unchanged.
pub fn grouped(command: Command) -> Command {
    let header = *command.get_styles().get_header();
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{{before-help}}{header}Options:{header:#}\n{{options}}{{after-help}}"
    );
    let overview = overview(&command);
    command
        .help_template(template)
        .before_help(overview)
        .after_help("`clipood help COMMAND` describes a command and its options.")
}

/// One block per group, one line per command.
fn overview(command: &Command) -> String {
    let styles = command.get_styles();
    let (header, literal) = (styles.get_header(), styles.get_literal());
    let names = GROUPS.iter().flat_map(|(_, names)| *names);
    let width = names.map(|name| name.len()).max().unwrap_or(0);
    let blocks = GROUPS.iter().map(|(title, names)| {
        let lines = names.iter().map(|name| {
            let about = command.find_subcommand(name).and_then(Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            format!("\n  {literal}{name:width$}{literal:#}  {about}")
        });
        format!("{header}{title}:{header:#}{}", lines.collect::<String>())
    });
    blocks.collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_stands_in_the_overview_once() {
        let command = crate::Cli::command();
        let mut listed: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, names)| *names)
            .copied()
            .collect();
        let mut known: Vec<&str> = command
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .map(Command::get_name)
            .collect();
        listed.sort_unstable();
        known.sort_unstable();
        assert_eq!(listed, known);

        let help = grouped(command.clone()).render_help().to_string();
        for name in known {
            let lines = help
                .lines()
                .filter(|line| line.starts_with(&format!("  {name} ")));
            assert_eq!(lines.count(), 1, "{name} in:\n{help}");
        }
        for (title, _) in GROUPS {
            assert_eq!(
                help.matches(&format!("{title}:\n")).count(),
                1,
                "{title} in:\n{help}"
            );
        }
        assert!(help.contains("Options:\n      --trace <FILTER>"), "{help}");
        let widest = overview(&command)
            .lines()
            .map(|line| line.chars().count())
            .max();
        assert!(widest <= Some(120), "{widest:?} characters in:\n{help}");
    }

    #[test]
    fn the_help_of_one_command_is_its_own() {
        let words = ["clipood", "help", "report"];
        let help = grouped(crate::Cli::command())
            .try_get_matches_from(words)
            .unwrap_err();
        let help = help.to_string();
        assert!(
            help.contains("Usage: clipood report") && !help.contains("Plumbing"),
            "{help}"
        );
    }
}
