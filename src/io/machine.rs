//! The machine: its processor, cores, system and memory, and the processes that hold a file.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

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

/// The processes that hold a lock on a file, such as `process 4711 (sqlite3)`. Empty where the system does not say: on
/// other systems, for processes of other machines, and within containers.
pub fn holders(path: &Path) -> Vec<String> {
    let (Ok(file), Ok(locks)) = (fs::metadata(path), fs::read_to_string("/proc/locks")) else {
        return Vec::new();
    };
    let mut processes: Vec<u32> = locks.lines().filter_map(|line| holder(line, file.ino())).collect();
    processes.retain(|process| *process != std::process::id());
    processes.sort_unstable();
    processes.dedup();
    let text = |process: u32| match fs::read_to_string(format!("/proc/{process}/comm")) {
        Ok(name) => format!("process {process} ({})", name.trim()),
        Err(_) => format!("process {process}"),
    };
    processes.into_iter().map(text).collect()
}

/// The process of a line of `/proc/locks`, if it holds a lock on the file of this inode. The devices in these lines are
/// not those of `stat` on every file system, so they are not compared.
fn holder(line: &str, inode: u64) -> Option<u32> {
    let mut fields = line.split_whitespace().skip(1);
    // A line with an arrow is a process that waits.
    let (kind, process) = (fields.next()?, fields.nth(2)?);
    let found = fields.next()?.rsplit(':').next()?;
    let is_same = kind != "->" && found.parse() == Ok(inode);
    process.parse().ok().filter(|process| is_same && *process > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_its_process_unless_it_waits() {
        let line = "3: POSIX  ADVISORY  WRITE 4711 08:01:99 1073741825 1073741825";
        assert_eq!(holder(line, 99), Some(4711));
        assert_eq!(holder(line, 9), None);
        assert_eq!(holder("3: -> POSIX  ADVISORY  WRITE 4711 08:01:99 0 EOF", 99), None);
        assert_eq!(holder("3: OFDLCK ADVISORY  WRITE -1 08:01:99 0 EOF", 99), None);
        assert_eq!(holder("", 99), None);
    }

    #[test]
    fn cores_are_counted_once() {
        let core = |socket, core| format!("processor\t: 0\nphysical id\t: {socket}\ncore id\t\t: {core}\n\n");
        let text: String = [(0, 0), (0, 1), (0, 0), (1, 0)].map(|(a, b)| core(a, b)).concat();
        assert_eq!(count_cores(&text), Some(3));
        assert_eq!(count_cores("processor\t: 0\n"), None);
    }
}
