//! Interrupts, settings, BPF, livepatches and the trace, as the report has them.

use serde::{Deserialize, Serialize};

use std::collections::BTreeMap;

/// An interrupt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Irq {
    /// Its number.
    pub irq: u64,
    /// Its handlers' names.
    pub name: Option<String>,
    /// How often it came, on all CPUs.
    pub count: Option<u64>,
    /// How often it came on each CPU, by the CPU's number; CPUs where it never came are left out.
    #[serde(default)]
    pub per_cpu: BTreeMap<u32, u64>,
    /// Its number at the interrupt controller.
    #[serde(default)]
    pub hwirq: Option<u64>,
    /// The interrupt controller.
    #[serde(default)]
    pub chip: Option<String>,
    /// How it is handled: `edge`, `fasteoi`, …
    #[serde(default)]
    pub flow: Option<String>,
    /// Its handlers' functions, in their order.
    #[serde(default)]
    pub handlers: Vec<String>,
    /// The CPUs that may handle it, as a list: `0-3,8`.
    #[serde(default)]
    pub affinity: Option<String>,
    /// The CPUs that do.
    #[serde(default)]
    pub effective_affinity: Option<String>,
    /// How often it is disabled; 0 is enabled.
    #[serde(default)]
    pub disable_depth: Option<u32>,
    /// How many of the last came without any handler saying that it was its own.
    #[serde(default)]
    pub unhandled: Option<u32>,
    /// Its state.
    #[serde(default)]
    pub state: Vec<String>,
}

/// What a setting is set to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Setting {
    /// A number.
    Number(i64),
    /// Words.
    Text(String),
}

/// What of BPF is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bpf {
    /// The programs, by ascending number.
    pub programs: Vec<BpfProgram>,
    /// How many maps there are.
    pub maps: Option<u64>,
    /// How many links there are.
    pub links: Option<u64>,
}

/// A loaded BPF program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfProgram {
    /// Its number.
    pub id: u64,
    /// Its type: `kprobe`, `xdp`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The hash over its instructions, in hexadecimal.
    pub tag: String,
    /// Who loaded it.
    pub uid: Option<u32>,
    /// Bytes of its machine code; 0 where it is interpreted.
    pub jited: Option<u32>,
    /// Instructions that it has.
    pub instructions: Option<u32>,
}

/// A livepatch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Livepatch {
    /// Its module.
    pub name: String,
    /// It is in use.
    pub enabled: bool,
    /// Tasks are just being moved to it or from it.
    pub transition: bool,
}

/// The last events of the trace buffer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Events that the buffer holds, those that are not shown here among them.
    pub total: u64,
    /// Events that later ones took the place of.
    pub overwritten: u64,
    /// The last ones, the oldest first.
    pub events: Vec<TraceEvent>,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceEvent {
    /// Seconds of the trace's clock.
    pub ts: f64,
    /// The CPU.
    pub cpu: u32,
    /// The task that ran.
    pub pid: i64,
    /// What sort of event; its number where the kernel has no name for it.
    pub name: String,
    /// What it says.
    pub fields: BTreeMap<String, String>,
}
