use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;
use fastclip_ingest::{LogFormat, Progress, ProgressError, ProgressOptions, Stop};

use super::parse_seconds;

/// What a request to stop is answered with.
const STOPPING: &str = "stopping; Ctrl-C again stops at once";

/// How every command says how far it has come.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ProgressArgs {
    /// Form of progress, messages and errors on standard error
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, help_heading = "Progress")]
    log_format: Format,
    /// Seconds between lines of progress, where they are no bar on a terminal
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10.0, value_parser = parse_seconds, help_heading = "Progress")]
    log_interval: f64,
    /// Address to serve counters for Prometheus at, such as 0.0.0.0:9090
    #[arg(long, global = true, value_name = "ADDRESS", help_heading = "Progress")]
    metrics_listen: Option<SocketAddr>,
}

/// [`LogFormat`] on a command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// A bar on a terminal, plain lines elsewhere
    Text,
    /// One JSON object a line
    Json,
}

impl ProgressArgs {
    /// Shows that `action` begins, and acknowledges a request to stop it.
    pub(super) fn start(
        &self,
        action: &str,
        unit: &'static str,
        stop: &Stop,
    ) -> Result<Progress, ProgressError> {
        let options = ProgressOptions {
            format: self.format(),
            interval: Duration::from_secs_f64(self.log_interval),
            metrics: self.metrics_listen,
        };
        let progress = Progress::start(action, unit, &options)?;
        progress.watch(stop, STOPPING);
        Ok(progress)
    }

    pub(super) fn format(&self) -> LogFormat {
        match self.log_format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        }
    }
}
