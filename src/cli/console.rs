//! Tells the story: on a terminal with colours and a spinner on the running step, in a pipe as plain lines.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget};
use owo_colors::OwoColorize;
use tokio::sync::mpsc;

use crate::core::story::{Happening, StoryLine};

/// Lines a second at most: nobody reads more, and a terminal must not slow anybody down.
const LINES_PER_SECOND: u32 = 200;

/// Tells lines on stdout.
#[derive(Debug)]
pub(super) struct Console {
    spinner: Option<ProgressBar>,
    limit: Option<u32>,
    second: Instant,
    told: u32,
    left_out: u64,
}

impl Console {
    /// For the story of a few sagas: every line is told.
    pub fn new() -> Self {
        Self::with(None)
    }

    /// For the story of all sagas: what is too much is counted.
    pub fn bounded() -> Self {
        Self::with(Some(LINES_PER_SECOND))
    }

    fn with(limit: Option<u32>) -> Self {
        // The spinner is talk, but without a terminal for the story it would only flicker.
        let on_terminal = io::stdout().is_terminal() && io::stderr().is_terminal();
        let spinner = on_terminal.then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()));
        Self { spinner, limit, second: Instant::now(), told: 0, left_out: 0 }
    }

    /// Tells one line.
    pub fn tell(&mut self, line: &StoryLine) -> io::Result<()> {
        let is_passing = match line.what {
            Happening::Calling { .. } => true,
            // Without a spinner to show it on it is a line like others.
            Happening::Progress { .. } => self.spinner.is_some(),
            _ => false,
        };
        if is_passing {
            self.spin(line);
            return Ok(());
        }
        self.next_second(Instant::now())?;
        if self.limit.is_some_and(|limit| self.told >= limit) {
            self.left_out += 1;
            return Ok(());
        }
        self.told += 1;
        self.print(&coloured(line))
    }

    /// Says how much was left out, if the second is over.
    pub fn next_second(&mut self, now: Instant) -> io::Result<()> {
        if now.duration_since(self.second) < Duration::from_secs(1) {
            return Ok(());
        }
        self.second = now;
        self.told = 0;
        match std::mem::take(&mut self.left_out) {
            0 => Ok(()),
            count => self.print(&format!("… {count} more lines")),
        }
    }

    /// Shows what is being done, where there is a terminal to show it on.
    fn spin(&self, line: &StoryLine) {
        if let Some(spinner) = &self.spinner {
            let text = line.to_string();
            spinner.set_message(text.trim_start_matches("… ").to_owned());
            spinner.enable_steady_tick(Duration::from_millis(100));
        }
    }

    fn print(&self, text: &str) -> io::Result<()> {
        let write = || {
            let mut out = anstream::stdout().lock();
            writeln!(out, "{text}")?;
            out.flush()
        };
        match &self.spinner {
            Some(spinner) => spinner.suspend(write),
            None => write(),
        }
    }

    /// Takes the spinner away.
    pub fn rest(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.disable_steady_tick();
            spinner.finish_and_clear();
        }
    }

    /// Tells what comes until the other side is gone.
    pub async fn tell_all(mut self, mut lines: mpsc::Receiver<StoryLine>) -> io::Result<()> {
        loop {
            match tokio::time::timeout(Duration::from_secs(1), lines.recv()).await {
                Ok(Some(line)) => {
                    self.tell(&line)?;
                    if let (Happening::Ended { .. }, true) = (&line.what, lines.is_empty()) {
                        self.rest();
                    }
                }
                Ok(None) => break,
                Err(_quiet) => self.next_second(Instant::now())?,
            }
        }
        self.rest();
        Ok(())
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.rest();
    }
}

/// Colours the mark, and nothing else: it carries the meaning.
fn coloured(line: &StoryLine) -> String {
    // Messages come from services: they must not move the cursor.
    let text: String = line.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let Some((mark, rest)) = text.split_once(' ') else { return text };
    let mark = match mark {
        "▶" => mark.cyan().to_string(),
        "✓" | "✔" => mark.green().to_string(),
        "✗" => mark.yellow().to_string(),
        "✘" => mark.red().to_string(),
        "↶" => mark.magenta().to_string(),
        _ => mark.to_owned(),
    };
    format!("{mark} {rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_service_says_cannot_move_the_cursor() {
        let line = StoryLine { definition: "x.v1".into(), what: Happening::Done { step: "a".into(), message: Some("\u{1b}[2Jgone\n".into()) } };
        let text = anstream::adapter::strip_str(&coloured(&line)).to_string();
        assert_eq!(text, "✓ a                         [2Jgone ");
    }

    #[test]
    fn a_flood_is_counted() {
        let mut console = Console { spinner: None, limit: Some(0), second: Instant::now(), told: 0, left_out: 0 };
        let line = StoryLine { definition: "x.v1".into(), what: Happening::Started };
        for _ in 0..3 {
            console.tell(&line).expect("told");
        }
        assert_eq!(console.left_out, 3);
    }
}
