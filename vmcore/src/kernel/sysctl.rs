//! Settings that matter for a crash, read from the variables that hold them (`/proc/sys`, `/sys/kernel`).
//!
//! A variable is believed where its symbol has room for the number; one that is yes or no must hold 0 or 1. The kernel's bounds of
//! the others are not checked.

use super::Gap;
use super::reader::{Reader, note};
use super::value::{Layout, view};
use super::variable::Variables;
use crate::addr::KVirtAddr;

view! {
    struct Resource of "resource" {
        start: u64 = ["start"],
        end: u64 = ["end"],
    }
}

view! {
    struct PidNamespace of "pid_namespace" {
        pid_max: i32 = ["pid_max"],
    }
}

/// How a variable holds its number.
#[derive(Clone, Copy)]
enum Form {
    /// `int`.
    Int,
    /// `unsigned long`.
    Long,
    /// `bool`.
    Bool,
}

/// A setting's name, the variables that have held it (newest first), and how.
type Row = (&'static str, &'static [&'static str], Form);

/// From the kernel's tables of settings, 4.18 to 7.0.
const TABLE: &[Row] = &[
    ("kernel.panic", &["panic_timeout"], Form::Int),
    ("kernel.panic_on_oops", &["panic_on_oops"], Form::Int),
    ("kernel.panic_on_warn", &["panic_on_warn"], Form::Int),
    ("kernel.panic_on_rcu_stall", &["sysctl_panic_on_rcu_stall"], Form::Int),
    ("kernel.panic_on_io_nmi", &["panic_on_io_nmi"], Form::Int),
    ("kernel.panic_on_unrecovered_nmi", &["panic_on_unrecovered_nmi"], Form::Int),
    ("kernel.unknown_nmi_panic", &["unknown_nmi_panic"], Form::Int),
    ("kernel.panic_print", &["panic_print"], Form::Long),
    ("kernel.panic_on_taint", &["panic_on_taint"], Form::Long),
    ("kernel.softlockup_panic", &["softlockup_panic"], Form::Int),
    ("kernel.hardlockup_panic", &["hardlockup_panic"], Form::Int),
    ("kernel.hung_task_panic", &["sysctl_hung_task_panic"], Form::Int),
    ("kernel.hung_task_timeout_secs", &["sysctl_hung_task_timeout_secs"], Form::Long),
    ("kernel.hung_task_warnings", &["sysctl_hung_task_warnings"], Form::Int),
    ("kernel.watchdog", &["watchdog_user_enabled"], Form::Int),
    ("kernel.nmi_watchdog", &["watchdog_hardlockup_user_enabled", "nmi_watchdog_user_enabled"], Form::Int),
    ("kernel.soft_watchdog", &["watchdog_softlockup_user_enabled", "soft_watchdog_user_enabled"], Form::Int),
    ("kernel.watchdog_thresh", &["watchdog_thresh"], Form::Int),
    ("kernel.sysrq", &["sysrq_enabled"], Form::Int),
    ("kernel.threads-max", &["max_threads"], Form::Int),
    ("kernel.pid_max", &["pid_max"], Form::Int),
    ("kernel.numa_balancing", &["sysctl_numa_balancing_mode"], Form::Int),
    ("kernel.kptr_restrict", &["kptr_restrict"], Form::Int),
    ("kernel.dmesg_restrict", &["dmesg_restrict"], Form::Int),
    ("kernel.modules_disabled", &["modules_disabled"], Form::Int),
    ("kernel.kexec_load_disabled", &["kexec_load_disabled"], Form::Int),
    ("crash_kexec_post_notifiers", &["crash_kexec_post_notifiers"], Form::Bool),
    ("vm.panic_on_oom", &["sysctl_panic_on_oom"], Form::Int),
    ("vm.oom_kill_allocating_task", &["sysctl_oom_kill_allocating_task"], Form::Int),
    ("vm.min_free_kbytes", &["min_free_kbytes"], Form::Int),
    ("vm.overcommit_memory", &["sysctl_overcommit_memory"], Form::Int),
    ("vm.overcommit_ratio", &["sysctl_overcommit_ratio"], Form::Int),
    ("vm.swappiness", &["vm_swappiness"], Form::Int),
    ("vm.dirty_ratio", &["vm_dirty_ratio"], Form::Int),
    ("vm.dirty_background_ratio", &["dirty_background_ratio"], Form::Int),
];

/// What a setting is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Setting {
    /// A number.
    Number(i64),
    /// Words.
    Text(String),
}

/// The settings that could be read.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Settings {
    /// By their names: `kernel.panic_on_oops`, `vm.swappiness`, …
    pub settings: Vec<(String, Setting)>,
    /// What could not be had, and why.
    pub gaps: Vec<Gap>,
}

impl Settings {
    /// A number by its name.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        self.settings.iter().find(|(n, _)| n == name).and_then(|(_, setting)| match setting {
            Setting::Number(number) => Some(*number),
            Setting::Text(_) => None,
        })
    }
}

/// Reads them. One that this kernel does not have is no gap.
#[must_use]
pub fn read(reader: Reader<'_, '_>) -> Settings {
    let mut found = Settings::default();
    for (name, variables, form) in TABLE {
        let Some(variable) = variables.iter().find(|v| reader.symbols.symbol(v).is_some()) else { continue };
        match number(reader, variable, *form) {
            Ok(value) => found.settings.push(((*name).into(), Setting::Number(value))),
            Err(why) => note(&mut found.gaps, name, why),
        }
    }
    pid_max(reader, &mut found);
    console(reader, &mut found);
    huge_pages(reader, &mut found);
    crash_kernel(reader, &mut found);
    found.settings.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
}

fn number(reader: Reader<'_, '_>, variable: &'static str, form: Form) -> Result<i64, String> {
    let variables = Variables::new(reader.memory, reader.symbols);
    let room = reader.symbols.symbol(variable).and_then(|symbol| symbol.size);
    let needs = match form {
        Form::Int => 4,
        Form::Long => 8,
        Form::Bool => 1,
    };
    if let Some(room) = room.filter(|room| *room < needs) {
        return Err(format!("{variable} has {room} bytes, and a number of {needs} is wanted"));
    }
    match form {
        Form::Int => variables.i32(variable).map(i64::from).map_err(|why| why.to_string()),
        Form::Long => {
            let value = variables.u64(variable).map_err(|why| why.to_string())?;
            Ok(value.cast_signed())
        }
        Form::Bool => {
            let at = variables.address(variable).map_err(|why| why.to_string())?;
            match reader.memory.read_u8(at).map_err(|why| why.to_string())? {
                value @ (0 | 1) => Ok(i64::from(value)),
                other => Err(format!("{variable} holds {other}, and is yes or no")),
            }
        }
    }
}

/// Since 6.14 each namespace of pids has a limit of its own.
fn pid_max(reader: Reader<'_, '_>, found: &mut Settings) {
    let name = "kernel.pid_max";
    if found.number(name).is_some() {
        return;
    }
    let Ok(layout) = Layout::<PidNamespace>::new(reader.types) else { return };
    let Some(at) = reader.symbols.address("init_pid_ns") else { return };
    match layout.read(reader.memory, at) {
        Ok(space) => found.settings.push((name.into(), Setting::Number(i64::from(space.pid_max)))),
        Err(why) => note(&mut found.gaps, name, why),
    }
}

/// The four levels of `kernel.printk`.
fn console(reader: Reader<'_, '_>, found: &mut Settings) {
    let Some(at) = reader.symbols.address("console_printk") else { return };
    let level = |number: u64| {
        let place =
            at.checked_add(number.saturating_mul(4)).ok_or("it is at the end of the address space")?;
        let level = reader.memory.read_u32(place).map_err(|why| why.to_string())?;
        Ok::<_, String>(level.cast_signed().to_string())
    };
    match (0..4).map(level).collect::<Result<Vec<_>, _>>() {
        Ok(levels) => found.settings.push(("kernel.printk".into(), Setting::Text(levels.join(" ")))),
        Err(why) => note(&mut found.gaps, "kernel.printk", why),
    }
}

fn huge_pages(reader: Reader<'_, '_>, found: &mut Settings) {
    let name = "transparent_hugepage";
    let variables = Variables::new(reader.memory, reader.symbols);
    if reader.symbols.symbol("transparent_hugepage_flags").is_none() {
        return;
    }
    let bit = |constant: &str| {
        let number = reader.types.kernel()?.constant(constant).ok()?;
        1_u64.checked_shl(u32::try_from(number).ok()?)
    };
    let always = bit("TRANSPARENT_HUGEPAGE_FLAG");
    let advised = bit("TRANSPARENT_HUGEPAGE_REQ_MADV_FLAG");
    match (variables.u64("transparent_hugepage_flags"), always, advised) {
        (Ok(flags), Some(always), Some(advised)) => {
            let word = if flags & always != 0 {
                "always"
            } else if flags & advised != 0 {
                "madvise"
            } else {
                "never"
            };
            found.settings.push((name.into(), Setting::Text(word.into())));
        }
        (Err(why), ..) => note(&mut found.gaps, name, why),
        _ => note(&mut found.gaps, name, "the kernel's types do not tell its bits"),
    }
}

/// Whether a capture kernel is loaded, and how much memory is reserved for it.
fn crash_kernel(reader: Reader<'_, '_>, found: &mut Settings) {
    let variables = Variables::new(reader.memory, reader.symbols);
    if reader.symbols.symbol("kexec_crash_image").is_some() {
        match variables.u64("kexec_crash_image") {
            Ok(at) => found
                .settings
                .push(("kexec_crash_loaded".into(), Setting::Number(i64::from(!KVirtAddr(at).is_null())))),
            Err(why) => note(&mut found.gaps, "kexec_crash_loaded", why),
        }
    }
    let Some(at) = reader.symbols.address("crashk_res") else { return };
    let read = || {
        let layout = Layout::<Resource>::new(reader.types).map_err(|why| why.to_string())?;
        layout.read(reader.memory, at).map_err(|why| why.to_string())
    };
    match read() {
        Ok(resource) => {
            let size = if resource.end == 0 {
                0
            } else {
                resource.end.saturating_sub(resource.start).saturating_add(1)
            };
            let size = i64::try_from(size).unwrap_or(i64::MAX);
            found.settings.push(("kexec_crash_size".into(), Setting::Number(size)));
        }
        Err(why) => note(&mut found.gaps, "kexec_crash_size", why),
    }
}
