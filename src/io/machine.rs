//! The machine's processor, cores, operating system and memory.

use std::collections::BTreeSet;
use std::fs;

/// The processor's name.
pub fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// Number of physical cores, if the system reports it.
pub fn cores() -> Option<usize> {
    count_cores(&fs::read_to_string("/proc/cpuinfo").ok()?)
}

fn count_cores(cpuinfo: &str) -> Option<usize> {
    let value = |block: &str, name: &str| {
        let line = block.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let place = |block| Some((value(block, "physical id")?, value(block, "core id")?));
    let places: BTreeSet<_> = cpuinfo.split("\n\n").filter_map(place).collect();
    Some(places.len()).filter(|count| *count > 0)
}

/// The name of the operating system, and the version of its kernel if the system reports it.
pub fn operating_system() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = release.trim().split('-').next().unwrap_or_default();
    format!("{} {version}", std::env::consts::OS).trim().to_owned()
}

/// Bytes of memory available now, if the system reports them.
pub fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The name of this start of the machine, and milliseconds since then, as all processes of the machine see them.
pub fn boot() -> (String, u64) {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let ms = up.tv_sec.unsigned_abs() * 1000 + up.tv_nsec.unsigned_abs() / 1_000_000;
    (id.trim().to_owned(), ms)
}

/// Peak resident memory of this process in bytes, if the system reports it (Linux).
pub fn peak_resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_counted_once() {
        let core = |socket, core| format!("processor\t: 0\nphysical id\t: {socket}\ncore id\t\t: {core}\n\n");
        let text: String = [(0, 0), (0, 1), (0, 0), (1, 0)].map(|(a, b)| core(a, b)).concat();
        assert_eq!(count_cores(&text), Some(3));
        assert_eq!(count_cores("processor\t: 0\n"), None);
    }
}
