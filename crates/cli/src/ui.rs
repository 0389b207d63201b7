//! How the command speaks: errors, hints, tables and colours.

use std::{
    fmt,
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

use serde::Serialize;

use crate::json;

/// What to do about an error; put into an error's chain by [`hint`].
#[derive(Debug)]
struct Hint {
    what: String,
    then: String,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Hint {}

/// An error that says what is wrong, and then what to do.
pub(crate) fn hint(what: impl Into<String>, then: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Hint { what: what.into(), then: then.into() })
}

/// What a command exits with when nobody reads its output any more: as a shell says SIGPIPE.
const CLOSED: u8 = 141;

/// Nobody reads standard output any more. A type of its own: a connection to a server breaks with
/// the same [`std::io::ErrorKind`], and that is an error to show.
#[derive(Debug)]
struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads the output any more")
    }
}

impl std::error::Error for Closed {}

/// The error of a write to standard output; a closed pipe ends the command quietly, as any filter.
pub(crate) fn unwritable(error: std::io::Error) -> anyhow::Error {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        anyhow::Error::new(Closed)
    } else {
        anyhow::Error::new(error).context("the output cannot be written")
    }
}

/// Writes a line to standard error. Nobody is left to tell when that is closed.
pub(crate) fn say(text: &str) {
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Prints an error with its causes, and the hint if there is one.
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    if error.downcast_ref::<Closed>().is_some() {
        return ExitCode::from(CLOSED);
    }
    let style = Style::of_stderr();
    say(&told(error, style));
    ExitCode::FAILURE
}

/// An error in words. A part of it may be a server's: no control character of it reaches the
/// terminal but line breaks.
fn told(error: &anyhow::Error, style: Style) -> String {
    let shown = |text: &str| text.split('\n').map(printable).collect::<Vec<_>>().join("\n");
    let mut text =
        format!("{} {}\n", style.paint(Colour::Red, "error:"), shown(&error.to_string()));
    for cause in error.chain().skip(1) {
        let cause = shown(&cause.to_string());
        text.push_str(&format!("  {} {cause}\n", style.paint(Colour::Dim, "caused by:")));
    }
    if let Some(hint) = error.downcast_ref::<Hint>() {
        let then = shown(&hint.then);
        text.push_str(&format!("\n{} {then}\n", style.paint(Colour::Cyan, "hint:")));
    }
    text.trim_end_matches('\n').to_owned()
}

/// Prints to standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(unwritable)
}

/// Prints a value as indented JSON.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", json::pretty(value)?))
}

/// The few colours that are used.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Colour {
    Red,
    Green,
    Yellow,
    Cyan,
    Dim,
    Bold,
}

/// Whether a stream takes colours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style(bool);

impl Style {
    /// Standard output: colours on a terminal unless `NO_COLOR` is set.
    pub(crate) fn of_stdout() -> Self {
        Self(std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none())
    }

    /// Standard error.
    pub(crate) fn of_stderr() -> Self {
        Self(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
    }

    /// `text` in `colour`.
    pub(crate) fn paint(self, colour: Colour, text: &str) -> String {
        if !self.0 {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Red => "31",
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Cyan => "36",
            Colour::Dim => "2",
            Colour::Bold => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// A state in its colour: green for what went well, red for what did not.
    pub(crate) fn state(self, state: &str) -> String {
        let colour = match state {
            "COMPLETE" => Colour::Green,
            "EXECUTOR_ERROR" | "SYSTEM_ERROR" | "PREEMPTED" => Colour::Red,
            "CANCELING" | "CANCELED" => Colour::Yellow,
            _ => Colour::Cyan,
        };
        self.paint(colour, state)
    }
}

/// A table with a header, columns as wide as their widest cell. Control characters in cells, which
/// come from whoever submitted the run, are shown as escapes.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, title)| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .chain([title.len()])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            text.push_str(&format!("{cell:<width$}  "));
        }
        format!("{}\n", text.trim_end())
    };
    let mut text = line(header.to_vec());
    for row in &rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

/// Text from elsewhere without what could move a terminal's cursor.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            // What turns the direction of text makes a name read as another.
            let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if c.is_control() || turns { c.escape_default().collect() } else { vec![c] }
        })
        .collect()
}

/// A number of bytes for a person.
pub(crate) fn bytes(count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a rounded figure for a person")]
    let mut size = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if size < 1024.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{size:.1} {unit}") };
        }
        size /= 1024.0;
    }
    format!("{size:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_cannot_move_the_cursor() {
        let rows = vec![
            vec!["one".to_owned(), "x\x1b[2J".to_owned()],
            vec!["twenty".to_owned(), "ü".to_owned()],
        ];
        insta::assert_snapshot!(table(&["ID", "TAGS"], &rows), @r"
        ID      TAGS
        one     x\u{1b}[2J
        twenty  ü
        ");
    }

    #[test]
    fn what_a_server_says_of_an_error_cannot_move_the_cursor() {
        let error = hint("no run\nat all \x1b]0;title\x07", "try \x1b[2Janother")
            .context("asking \u{202e}failed\r");
        assert_eq!(
            told(&error, Style(false)),
            "error: asking \\u{202e}failed\\r\n  caused by: no run\nat all \\u{1b}]0;title\\u{7}\n\nhint: try \\u{1b}[2Janother"
        );
    }

    #[test]
    fn sizes_are_rounded() {
        assert_eq!([0, 1023, 1536, 5 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
    }
}
