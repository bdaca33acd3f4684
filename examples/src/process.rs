use rustix::time::{ClockId, clock_gettime};

/// Processor time that all threads of this process have taken.
pub fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Most memory that this process has held; nothing where the system does not tell.
pub fn peak_rss_bytes() -> Option<u64> {
    status("VmHWM:")
}

/// Memory that this process holds now; nothing where the system does not tell.
pub fn rss_bytes() -> Option<u64> {
    status("VmRSS:")
}

fn status(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}
