//! Progress of a stage: a bar with rate and remaining time on a terminal, plain lines otherwise, or JSON for programs.

use std::io::Write;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::journal::{self, Journal, StageReport};

/// Writes a line to standard error. A line that cannot be written, for instance because its reader has gone, is lost:
/// the work goes on, whose results are files.
///
/// Control characters other than line breaks and tabs are escaped, so that the name of a file cannot move the cursor of
/// a terminal.
pub fn tell(line: &str) {
    let mut text = clipood_core::without_controls(line);
    text.push('\n');
    // In one write, so that lines of several threads do not mix.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// How a run reports its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reporting {
    /// Bars on a terminal, lines otherwise, on standard error.
    Human,
    /// One JSON object per line on standard error: `message`, or `stage` with `note` or with `done`, `total`, `unit`,
    /// `seconds`, `rate` (per second), `left` (seconds; null as long as nothing is done) and `remark`.
    Json,
    /// Nothing (tests, library use).
    Silent,
}

/// The progress of one stage.
pub struct StageProgress {
    bar: ProgressBar,
    stage: &'static str,
    unit: &'static str,
    /// A remark that is shown behind the unit while the stage runs.
    remark: String,
    total: u64,
    lines: bool,
    json: bool,
    started: Instant,
    last_line: Instant,
    /// The journal that also receives the progress, and the time of its last entry.
    journal: Option<(Journal, Instant)>,
    /// When something was done last, however little.
    moved: Instant,
}

/// Time without a step after which work counts as hanging.
const HANGS: Duration = Duration::from_secs(3600);
/// Seconds between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

impl Reporting {
    /// Starts a stage of `total` pieces called `unit`.
    pub fn stage(self, stage: &'static str, unit: &'static str, total: u64) -> StageProgress {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let json = self == Self::Json;
        let lines = json || (self == Self::Human && bar.is_hidden());
        if self != Self::Human {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let template = "{prefix:>9} {bar:32} {pos}/{len} {msg} ({per_sec}, {eta} left)";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(stage);
        bar.set_message(unit);
        let now = Instant::now();
        StageProgress {
            bar,
            stage,
            unit,
            remark: String::new(),
            total,
            lines,
            json,
            started: now,
            last_line: now,
            journal: None,
            moved: now,
        }
    }

    /// Prints a line that belongs to no stage.
    pub fn say(self, line: &str) {
        match self {
            Self::Human => tell(line),
            Self::Json => tell(&json!({ "message": line }).to_string()),
            Self::Silent => {}
        }
    }
}

impl StageProgress {
    /// Also reports the stage to `journal`, now and every few seconds.
    #[must_use]
    pub(crate) fn with_journal(mut self, journal: &Journal) -> Self {
        journal.stage(self.report());
        self.journal = Some((journal.clone(), Instant::now()));
        self
    }

    /// `n` more pieces are done.
    pub fn add(&mut self, n: u64) {
        self.bar.inc(n);
        if self.lines && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            tell(&self.line());
        }
        self.step();
    }

    /// Something was done, but no piece: a step of a training.
    pub fn step(&mut self) {
        self.moved = Instant::now();
        self.beat();
    }

    /// Reports to the journal that this worker lives, if it has not been told for a while, unless nothing has been done for
    /// so long that this may not be true.
    pub fn beat(&mut self) {
        if self.moved.elapsed() >= HANGS {
            return;
        }
        if let Some((journal, last)) = &self.journal
            && last.elapsed() >= journal::EVERY
        {
            journal.stage(self.report());
            self.journal = Some((journal.clone(), Instant::now()));
        }
    }

    /// Replaces the remark behind the unit.
    pub fn remark(&mut self, text: String) {
        if !self.bar.is_hidden() {
            self.bar.set_message(format!("{}, {text}", self.unit));
        }
        self.remark = text;
    }

    /// Prints a note above the bar, or as a line where there is no terminal.
    pub fn note(&self, text: &str) {
        if self.json {
            tell(&json!({ "stage": self.stage, "note": text }).to_string());
        } else if self.lines {
            tell(&format!("{:>9} {text}", self.stage));
        } else {
            let text = clipood_core::without_controls(text);
            self.bar.println(format!("{:>9} {text}", self.stage));
        }
    }

    /// Ends the stage and prints its rate, unless others have done all of it.
    pub fn finish(self) {
        let (text, done) = (self.line(), self.bar.position());
        // A bar that is finished counts all pieces as done.
        self.bar.finish_and_clear();
        if (self.lines || !self.bar.is_hidden()) && (done > 0 || self.total == 0) {
            tell(&text);
        }
    }

    fn report(&self) -> StageReport {
        let done = self.bar.position();
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = done as f64 / seconds.max(1e-9);
        StageReport {
            name: self.stage.to_owned(),
            unit: self.unit.to_owned(),
            done,
            total: self.total,
            rate,
            left: self.total.saturating_sub(done) as f64 / rate.max(1e-9),
        }
    }

    fn line(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        let StageReport {
            done, rate, left, ..
        } = self.report();
        let left = (done > 0).then_some(left);
        if self.json {
            let line = json!({
                "stage": self.stage,
                "done": done,
                "total": self.total,
                "unit": self.unit,
                "seconds": seconds,
                "rate": rate,
                "left": left,
                "remark": self.remark,
            });
            return line.to_string();
        }
        let mut rest = format!("{rate:.0}/s");
        if done < self.total {
            rest += &left.map_or_else(String::new, |left| format!(", {left:.0} s left"));
            if !self.remark.is_empty() {
                rest += &format!("; {}", self.remark);
            }
        }
        format!(
            "{:>9} {done}/{} {} in {seconds:.1} s ({rest})",
            self.stage, self.total, self.unit
        )
    }
}
