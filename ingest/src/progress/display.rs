use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::snapshot::now;
use super::{Counters, LogFormat, ProgressOptions, lock};

/// How often a bar is drawn and the counters are looked at.
const TICK: Duration = Duration::from_millis(250);

/// Shows counters on standard error, from a thread of its own: a command that stands still is seen to stand still.
pub(super) struct Display {
    shown: Shown,
    ticker: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

/// How they are shown.
#[derive(Clone)]
pub(super) enum Shown {
    Nothing,
    Bar(ProgressBar),
    Lines,
    Json,
}

impl Display {
    pub(super) fn nothing() -> Self {
        Self { shown: Shown::Nothing, ticker: Mutex::default() }
    }

    pub(super) fn start(counters: Arc<Counters>, options: &ProgressOptions) -> io::Result<Self> {
        let shown = match options.format {
            LogFormat::Json => Shown::Json,
            LogFormat::Text if io::stderr().is_terminal() => Shown::Bar(bar(&counters)),
            LogFormat::Text => Shown::Lines,
        };
        let (stop, stopped) = mpsc::channel();
        let (interval, ticking) = (options.interval, shown.clone());
        let ticker = thread::Builder::new().name("progress".to_owned()).spawn(move || {
            let mut last = Instant::now();
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                counters.remember();
                if let Some(message) = counters.stop_message() {
                    ticking.say(&counters, message);
                }
                if matches!(ticking, Shown::Bar(_)) || last.elapsed() >= interval {
                    last = Instant::now();
                    ticking.show(&counters, "progress");
                }
            }
        })?;
        Ok(Self { shown, ticker: Mutex::new(Some((stop, ticker))) })
    }

    pub(super) fn say(&self, counters: &Counters, message: &str) {
        self.shown.say(counters, message);
    }

    /// Ends the thread, and shows how it ended where that is not left to the result.
    pub(super) fn finish(&self, counters: &Counters) {
        if !self.join() {
            return;
        }
        match &self.shown {
            Shown::Bar(bar) => bar.finish_and_clear(),
            Shown::Json => self.shown.show(counters, "end"),
            Shown::Nothing | Shown::Lines => {}
        }
    }

    /// Whether there was a thread left to join.
    fn join(&self) -> bool {
        let Some((stop, ticker)) = lock(&self.ticker).take() else { return false };
        drop(stop);
        // It only shows; what it may have panicked of is not worth a result.
        let _ = ticker.join();
        true
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.join();
    }
}

impl Shown {
    fn say(&self, counters: &Counters, message: &str) {
        match self {
            Self::Nothing => {}
            Self::Bar(bar) => bar.println(format!("{}: {message}", counters.action)),
            Self::Lines => print(&format!("{}: {message}", counters.action)),
            Self::Json => print(
                &json!({"event": "message", "time": now(), "action": counters.action, "message": message})
                    .to_string(),
            ),
        }
    }

    fn show(&self, counters: &Counters, event: &str) {
        let snapshot = counters.snapshot();
        match self {
            Self::Nothing => {}
            Self::Bar(bar) => {
                bar.set_length(snapshot.total.unwrap_or(snapshot.done));
                bar.set_position(snapshot.done);
                let left = snapshot.seconds_left().map(|seconds| Duration::from_secs_f64(seconds.min(1e9)));
                let left = left.map(|left| format!("{} left", indicatif::HumanDuration(left)));
                bar.set_prefix(left.unwrap_or_default());
                bar.set_message(snapshot.details());
            }
            Self::Lines => print(&snapshot.to_string()),
            Self::Json => print(&snapshot.to_json(event).to_string()),
        }
    }
}

fn print(line: &str) {
    // A closed standard error must not stop the work.
    let _ = writeln!(io::stderr(), "{line}");
}

fn bar(counters: &Counters) -> ProgressBar {
    let Counters { action, unit, .. } = counters;
    let template =
        format!("{action} {{wide_bar}} {{human_pos}}/{{human_len}} {unit}  {{prefix}}\n  {{wide_msg}}");
    let style = ProgressStyle::with_template(&template).expect("words and keys that it knows");
    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10)).with_style(style)
}
