//! Bounds on what a run item holds, far below DynamoDB's 400 KB an item.

/// The longest line of [`stepwes_core::Run::system_logs`], and the longest cause, in bytes.
pub const MAX_TEXT_BYTES: usize = 4 * 1024;

/// The most lines in [`stepwes_core::Run::system_logs`].
pub const MAX_SYSTEM_LOGS: usize = 50;

/// The longest command line, all its arguments together, in bytes.
pub const MAX_CMD_BYTES: usize = 8 * 1024;

/// Ends what was cut.
pub const CUT: &str = "… (cut)";

/// Stands for the lines that gave way to newer ones.
pub const DROPPED: &str = "(earlier lines were dropped)";

/// `text`, at most `max` bytes long, the end of what was cut marked.
pub(crate) fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max.saturating_sub(CUT.len())));
        text.push_str(CUT);
    }
    text
}

/// `cmd`, at most [`MAX_CMD_BYTES`] long; what is beyond is cut and marked.
pub(crate) fn cut_cmd(cmd: Vec<String>) -> Vec<String> {
    let mut left = MAX_CMD_BYTES;
    let mut kept = Vec::new();
    for arg in cmd {
        // An empty argument takes room too, or their number would have no bound.
        let size = arg.len() + 1;
        if size > left {
            kept.push(cut(arg, left.max(CUT.len())));
            if !kept.last().is_some_and(|last| last.ends_with(CUT)) {
                kept.push(CUT.to_owned());
            }
            break;
        }
        left -= size;
        kept.push(arg);
    }
    kept
}

/// Appends `line` to `logs`; beyond [`MAX_SYSTEM_LOGS`] the oldest give way.
pub(crate) fn append(logs: &mut Vec<String>, line: String) {
    logs.push(cut(line, MAX_TEXT_BYTES));
    if logs.len() > MAX_SYSTEM_LOGS {
        logs.drain(..=logs.len() - MAX_SYSTEM_LOGS);
        logs.insert(0, DROPPED.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters_and_marked() {
        assert_eq!(cut("short".into(), 10), "short");
        let long = cut("\u{1F9EC}".repeat(2000), MAX_TEXT_BYTES);
        assert!(long.len() <= MAX_TEXT_BYTES && long.ends_with(CUT), "{} bytes", long.len());
    }

    #[test]
    fn a_long_command_line_is_cut_in_all_and_marked() {
        let short = vec!["cwltool".to_owned(), String::new()];
        assert_eq!(cut_cmd(short.clone()), short);
        for long in [
            vec!["x".repeat(20_000)],
            vec!["x".repeat(100); 1000],
            vec![String::new(); 100_000],
            vec!["x".repeat(MAX_CMD_BYTES - 1), "y".into()],
        ] {
            let kept = cut_cmd(long);
            let size: usize = kept.iter().map(|arg| arg.len() + 1).sum();
            assert!(size <= MAX_CMD_BYTES + 2 * CUT.len(), "{size} bytes");
            assert!(kept.last().is_some_and(|last| last.ends_with(CUT)));
        }
    }

    #[test]
    fn the_oldest_lines_give_way_and_that_is_said() {
        let mut logs = Vec::new();
        for i in 0..60 {
            append(&mut logs, i.to_string());
        }
        assert_eq!(logs.len(), MAX_SYSTEM_LOGS);
        assert_eq!(logs[0], DROPPED);
        assert_eq!(logs[1..3], ["11", "12"]);
        assert_eq!(logs[49], "59");
    }
}
