//! Progress bars, and log lines that do not tear them apart.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where progress bars are drawn: on standard error when it is a terminal, nowhere otherwise.
///
/// Log lines that go to the same terminal must be written through [`writer`](Self::writer). Cloning shares the bars.
#[derive(Debug, Clone)]
pub struct Progress {
    bars: MultiProgress,
}

impl Progress {
    /// Draws on standard error if that is a terminal.
    pub fn on_terminal() -> Self {
        Self { bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()) }
    }

    /// Draws nothing, as is right for all ranks but the first.
    pub fn hidden() -> Self {
        Self { bars: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()) }
    }

    /// Starts a bar that shows how much of `total` is done, the rate in `unit` per second and the time left.
    ///
    /// The rate counts from `start`: what an earlier session did, did not take this one's time.
    pub fn bar(&self, title: &'static str, unit: &str, start: u64, total: u64) -> Bar {
        let template = format!(
            "{{prefix:>12.bold.cyan}} [{{bar:32}}] {{human_pos}}/{{human_len}} {unit} ({{percent}}%) \
             {{per_sec:.dim}}, {{eta}} left {{msg}}"
        );
        let style = ProgressStyle::with_template(&template)
            .expect("the template is a constant but for the unit, which holds no braces")
            .progress_chars("=> ");
        let bar = ProgressBar::new(total).with_style(style).with_prefix(title).with_position(start);
        let bar = self.bars.add(bar);
        bar.reset_eta();
        bar.enable_steady_tick(Duration::from_millis(500));
        Bar { bar }
    }

    /// Returns a writer to standard error that takes the bars away while a line is written.
    pub fn writer(&self) -> ProgressWriter {
        ProgressWriter { bars: self.bars.clone() }
    }
}

/// One bar. Dropping it takes it off the screen.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// Sets how much is done.
    pub fn set(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// Sets the text behind the figures.
    pub fn set_message(&self, text: impl Into<Cow<'static, str>>) {
        self.bar.set_message(text);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Writes to standard error between two drawings of the bars.
///
/// Meant for `tracing_subscriber`: `.with_writer(move || progress.writer())`.
#[derive(Debug, Clone)]
pub struct ProgressWriter {
    bars: MultiProgress,
}

impl Write for ProgressWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bars.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
