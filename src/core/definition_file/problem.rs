//! What is wrong with a file, said so that its author can mend it.

use std::fmt;

/// The longest part of a line that is shown.
const EXCERPT_CHARS_MAX: usize = 160;

/// Something wrong, or suspicious, at a place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether it keeps the file from being used.
    pub severity: Severity,
    /// The file as the caller named it.
    pub file: String,
    /// Line, from 1; 0 for a problem of the file as a whole.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
    /// Characters that it is about, at least 1.
    pub width: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The line itself.
    pub excerpt: String,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but probably means something else.
    Warning,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let number = if self.line == 0 { " ".to_owned() } else { self.line.to_string() };
        let margin = " ".repeat(number.len());
        write!(f, "{severity}: {}\n{margin}--> {}", self.message, self.file)?;
        if self.line == 0 {
            return self.help.as_ref().map_or(Ok(()), |help| write!(f, "\n  = help: {help}"));
        }
        // A long line is cut, from the left only as far as its mark stays in sight.
        let skip = if self.column > EXCERPT_CHARS_MAX { self.column - EXCERPT_CHARS_MAX / 2 } else { 0 };
        let shown: String = self.excerpt.chars().skip(skip).take(EXCERPT_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let before = self.column.saturating_sub(1 + skip);
        let width = self.width.min(shown.chars().count().saturating_sub(before)).max(1);
        write!(f, ":{}:{}\n {margin} |\n {number} | {}\n", self.line, self.column, shown.trim_end())?;
        write!(f, " {margin} | {}{}", " ".repeat(before), "^".repeat(width))?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, " {help}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_like_a_compilers() {
        let problem = Problem {
            severity: Severity::Error,
            file: "a.yaml".to_owned(),
            line: 9,
            column: 5,
            width: 3,
            message: "unknown key `cal`".to_owned(),
            help: Some("did you mean `call`?".to_owned()),
            excerpt: "    cal: x".to_owned(),
        };
        assert_eq!(problem.to_string(), "error: unknown key `cal`\n --> a.yaml:9:5\n   |\n 9 |     cal: x\n   |     ^^^ did you mean `call`?");
        let far = Problem { column: 5000, excerpt: "x".repeat(9000), ..problem };
        assert!(far.to_string().len() < 600);
    }
}
