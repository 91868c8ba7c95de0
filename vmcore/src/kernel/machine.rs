//! The machine as its kernel saw it: CPUs, memory, time, load, command line, taint, and what was noted of a panic.
//!
//! [`read`] never fails: what can't be had is `None`, with a [`Gap`] that says why.

use std::ops::Range;

use super::Gap;
use super::describe::Description;
use super::percpu::PerCpu;
use super::resource::{self, Resource};
use super::taint::{Letters, Taint};
use super::time::{self, Time};
use super::uts::{self, Uts};
use super::value::{Layout, view};
use super::variable::{VariableError, Variables};
use super::walk::Walk;
use crate::format::vmcoreinfo::Vmcoreinfo;
use crate::limits::Limits;
use crate::sym::btf::Types;
use crate::xlat::{KernelMemory, le};

/// Bytes of a command line at most (`COMMAND_LINE_SIZE` is 2048; a boot configuration adds to it).
const COMMAND_LINE: usize = 32 << 10;
/// Resources that are looked at: a large server has thousands.
const RESOURCES: usize = 1 << 16;

view! {
    /// `struct cpuinfo_x86`, of the CPU that booted.
    struct CpuInfo of "cpuinfo_x86" {
        vendor: String = ["x86_vendor_id"],
        model: String = ["x86_model_id"],
        microcode: Option<u32> = ["microcode"],
    }
}

/// What the kernel's variables say of its machine.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Machine {
    /// `uname -a`.
    pub uts: Option<Uts>,
    /// Its CPUs.
    pub cpus: Option<Cpus>,
    /// Model of the CPU that booted, as `/proc/cpuinfo` names it.
    pub cpu_model: Option<String>,
    /// Who made it: `GenuineIntel`, `AuthenticAMD`.
    pub cpu_vendor: Option<String>,
    /// Its microcode revision.
    pub microcode: Option<u32>,
    /// The hypervisor that the kernel runs on, as its enumerator without `X86_HYPER_`: `KVM`, `VMWARE`, `NATIVE` for none.
    pub hypervisor: Option<String>,
    /// Bytes of RAM that the kernel manages (`MemTotal`): without what it reserved when it booted.
    pub memory_bytes: Option<u64>,
    /// Where the RAM is (`System RAM` of `/proc/iomem`), in physical addresses.
    pub ram: Option<Vec<Range<u64>>>,
    /// Which of it is set aside for a capture kernel (`crashkernel=`); empty where none is.
    pub crash_memory: Option<Vec<Range<u64>>>,
    /// What time it was.
    pub time: Option<Time>,
    /// The load averages of 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// How many tasks (threads) there were, without the idle ones.
    pub threads: Option<u32>,
    /// `/proc/cmdline`.
    pub cmdline: Option<String>,
    /// What tainted the kernel.
    pub taint: Option<Taint>,
    /// Whether a capture kernel was loaded (`kexec -p`).
    pub crash_kernel_loaded: Option<bool>,
    /// The CPU that called `panic()`.
    pub panic_cpu: Option<Noted>,
    /// The CPU that started the capture kernel or stopped the others for it.
    pub crashing_cpu: Option<Noted>,
    /// How many oopses there were; since 6.2 and its backports.
    pub oops_count: Option<u32>,
    /// How many `WARN()`s there were; since 6.2 and its backports.
    pub warn_count: Option<u32>,
    /// What decides when the kernel panics and what then happens.
    pub settings: Vec<Setting>,
    /// What could not be had, and why.
    pub gaps: Vec<Gap>,
}

/// The machine's CPUs by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpus {
    /// Those that can exist.
    pub possible: Vec<usize>,
    /// Those that are plugged in.
    pub present: Option<Vec<usize>>,
    /// Those that the kernel ran on. A panic takes others offline on some machines.
    pub online: Option<Vec<usize>>,
}

/// A CPU that is noted somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// None is: what would have noted it did not happen.
    Nobody,
    /// This one.
    Cpu(u32),
}

/// A setting of the kernel (`sysctl`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// As `sysctl` names it.
    pub name: &'static str,
    /// Its value.
    pub value: i64,
}

/// Settings that say when the kernel panics, what then happens, and what is hidden: their names and variables. Not all kernels are
/// built with all of them.
const SETTINGS: &[(&str, &str)] = &[
    ("kernel.hardlockup_panic", "hardlockup_panic"),
    ("kernel.hung_task_panic", "sysctl_hung_task_panic"),
    ("kernel.kptr_restrict", "kptr_restrict"),
    ("kernel.panic", "panic_timeout"),
    ("kernel.panic_on_io_nmi", "panic_on_io_nmi"),
    ("kernel.panic_on_oops", "panic_on_oops"),
    ("kernel.panic_on_unrecovered_nmi", "panic_on_unrecovered_nmi"),
    ("kernel.panic_on_warn", "panic_on_warn"),
    ("kernel.softlockup_panic", "softlockup_panic"),
    ("kernel.unknown_nmi_panic", "unknown_nmi_panic"),
    ("vm.panic_on_oom", "sysctl_panic_on_oom"),
];

/// Reads what the kernel knows of its machine. `cpus` is `None` where [`PerCpu::read`] failed.
#[must_use]
pub fn read(
    memory: &KernelMemory<'_>,
    info: &Vmcoreinfo,
    description: &Description,
    cpus: Option<&PerCpu>,
    limits: &Limits,
) -> Machine {
    let variables = Variables::new(memory, &description.symbols);
    let mut reader = Reader { memory, description, variables, machine: Machine::default() };
    reader.identity(info, cpus);
    reader.processor();
    reader.memory(limits);
    let time = time::read(memory, info, description, &mut reader.machine.gaps);
    reader.machine.time = reader.keep("time", time);
    reader.load();
    reader.panic();
    reader.settings();
    reader.machine
}

struct Reader<'a, 'm> {
    memory: &'a KernelMemory<'m>,
    description: &'a Description,
    variables: Variables<'a, 'm>,
    machine: Machine,
}

impl Reader<'_, '_> {
    fn gap(&mut self, what: &str, why: &dyn std::fmt::Display) {
        self.machine.gaps.push(Gap { what: what.into(), why: why.to_string() });
    }

    /// The value, or a gap for it.
    fn keep<T, E: std::fmt::Display>(&mut self, what: &str, found: Result<T, E>) -> Option<T> {
        found.map_err(|why| self.gap(what, &why)).ok()
    }

    fn identity(&mut self, info: &Vmcoreinfo, cpus: Option<&PerCpu>) {
        self.machine.uts = self.keep("host name and release", uts::read(self.memory, info));
        match cpus {
            Some(cpus) => {
                self.machine.cpus = Some(Cpus {
                    possible: cpus.possible().to_vec(),
                    present: cpus.present().map(<[usize]>::to_vec),
                    online: cpus.online().map(<[usize]>::to_vec),
                });
            }
            None => self.gap("CPUs", &"the masks of CPUs can't be read"),
        }
        let cmdline = match self.variables.text("saved_command_line", COMMAND_LINE) {
            Ok(Some(text)) => Ok(text.trim_end().to_owned()),
            Ok(None) => Err("saved_command_line points nowhere: the kernel was still booting".to_owned()),
            Err(why) => Err(why.to_string()),
        };
        self.machine.cmdline = self.keep("command line", cmdline);
        let mask = self.variables.u64("tainted_mask");
        if let Some(mask) = self.keep("taint", mask) {
            let (letters, why) =
                Letters::read(self.memory, &self.description.symbols, &self.description.types);
            if let Some(why) = why {
                self.gap("letters of distributions in the taint", &why);
            }
            self.machine.taint = Some(letters.of_kernel(mask));
        }
    }

    fn processor(&mut self) {
        let read = || -> Result<CpuInfo, String> {
            let layout = Layout::<CpuInfo>::new(&self.description.types).map_err(|e| e.to_string())?;
            let at = self.variables.address("boot_cpu_data").map_err(|e| e.to_string())?;
            layout.read(self.memory, at).map_err(|e| e.to_string())
        };
        let found = read();
        if let Some(cpu) = self.keep("CPU model", found) {
            self.machine.cpu_model = Some(cpu.model.trim().to_owned());
            self.machine.cpu_vendor = Some(cpu.vendor.trim().to_owned());
            self.machine.microcode = cpu.microcode;
        }
        let kind = self.variables.u32("x86_hyper_type");
        if let Some(kind) = self.keep("hypervisor", kind) {
            let name = hypervisor(&self.description.types, kind);
            self.machine.hypervisor = self.keep("hypervisor", name);
        }
    }

    fn memory(&mut self, limits: &Limits) {
        // An atomic since 5.0 (kernel commit ca79b0c211af).
        let pages = match self.variables.u64("_totalram_pages") {
            Err(VariableError::NoSymbol { .. }) => self.variables.u64("totalram_pages"),
            other => other,
        };
        if let Some(pages) = self.keep("memory", pages) {
            let bytes = pages.checked_mul(self.memory.physical().page_size());
            let bytes = bytes.filter(|b| *b < 1 << 52).ok_or(VariableError::Implausible {
                name: "totalram_pages",
                found: format!("{pages} pages, which no machine has"),
            });
            self.machine.memory_bytes = self.keep("memory", bytes);
        }
        let tree = || -> Result<Walk<Resource>, String> {
            let root = self.variables.address("iomem_resource").map_err(|e| e.to_string())?;
            let most = limits.walk_items.min(RESOURCES);
            resource::walk(self.memory, &self.description.types, root, most).map_err(|e| e.to_string())
        };
        let tree = tree();
        let Some(tree) = self.keep("memory map", tree) else { return };
        if !tree.end.is_complete() {
            self.gap("parts of the memory map", &tree.end);
        }
        let of = |name: &str| -> Vec<Range<u64>> {
            tree.items.iter().filter(|r| r.name == name).map(|r| r.range.clone()).collect()
        };
        if tree.items.is_empty() {
            return;
        }
        self.machine.ram = Some(of("System RAM"));
        self.machine.crash_memory = Some(of("Crash kernel"));
    }

    fn load(&mut self) {
        let read = || -> Result<[f64; 3], VariableError> {
            let at = self.variables.address("avenrun")?;
            let mut bytes = [0_u8; 24];
            let unreadable = |source| VariableError::Unreadable { name: "avenrun", at, source };
            self.memory.read(at, &mut bytes).map_err(unreadable)?;
            // Fixed point with 11 bits behind it (`FSHIFT`); what does not fit 32 bits would be a million tasks.
            let average = |place| {
                let raw = le::u64_at(&bytes, place).unwrap_or_default();
                u32::try_from(raw).map(|raw| f64::from(raw) / 2048.0).map_err(|_| {
                    VariableError::Implausible {
                        name: "avenrun",
                        found: format!("{raw:#x}, which is no load"),
                    }
                })
            };
            Ok([average(0)?, average(8)?, average(16)?])
        };
        let load = read();
        self.machine.load = self.keep("load", load);
        let threads = self.variables.u32("nr_threads");
        self.machine.threads = self.keep("number of tasks", threads);
    }

    fn panic(&mut self) {
        let image = self.variables.u64("kexec_crash_image");
        self.machine.crash_kernel_loaded = self.keep("capture kernel", image).map(|image| image != 0);
        for name in ["panic_cpu", "crashing_cpu"] {
            let read = self.variables.i32(name);
            let noted = self.keep(name, read).map(noted);
            match name {
                "panic_cpu" => self.machine.panic_cpu = noted,
                _ => self.machine.crashing_cpu = noted,
            }
        }
        let oopses = self.variables.u32("oops_count");
        self.machine.oops_count = self.keep("number of oopses", oopses);
        let warnings = self.variables.u32("warn_count");
        self.machine.warn_count = self.keep("number of warnings", warnings);
    }

    fn settings(&mut self) {
        if self.description.symbols.kernel().is_none() {
            return self.gap("settings", &"the kernel's symbols are not known");
        }
        for (name, variable) in SETTINGS {
            match self.variables.i32(variable) {
                Ok(value) => self.machine.settings.push(Setting { name, value: i64::from(value) }),
                // The kernel is built without it.
                Err(VariableError::NoSymbol { .. }) => {}
                Err(why) => self.gap(name, &why),
            }
        }
    }
}

/// `-1` stands for none (`PANIC_CPU_INVALID`).
fn noted(number: i32) -> Noted {
    u32::try_from(number).map_or(Noted::Nobody, Noted::Cpu)
}

fn hypervisor(types: &Types, kind: u32) -> Result<String, String> {
    let all = types.enumeration("x86_hypervisor_type").map_err(|e| e.to_string())?;
    let name =
        all.name_of(i64::from(kind)).ok_or_else(|| format!("x86_hyper_type is {kind}, which is none"))?;
    Ok(name.strip_prefix("X86_HYPER_").unwrap_or(name).to_owned())
}
