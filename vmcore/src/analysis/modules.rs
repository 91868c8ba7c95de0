//! The modules in the words of the report.

use crate::kernel::module::{Module, Modules};
use crate::kernel::params::ParamValue;
use crate::report::{Address, KernelModule, NotLookedAt};

/// All modules, the last loaded first.
pub(super) fn section(modules: &Modules) -> Vec<KernelModule> {
    modules.modules.iter().map(one).collect()
}

fn one(module: &Module) -> KernelModule {
    let shown = module.parameters.iter().filter_map(|parameter| match &parameter.value {
        ParamValue::Shown(value) => Some((parameter.name.clone(), value.clone())),
        _ => None,
    });
    KernelModule {
        name: module.name.clone(),
        kaddr: module.base.map(|base| Address(base.0)),
        size: module.size,
        taint: module.taint.as_ref().map(|taint| taint.letters.clone()),
        refcount: module.references,
        state: Some(module.state.to_string()),
        used_by: module.used_by.clone(),
        version: module.version.clone(),
        build_id: module.build_id.clone(),
        parameters: shown.collect(),
    }
}

/// What of the modules could not be had.
pub(super) fn not_looked_at(modules: &Modules) -> Vec<NotLookedAt> {
    let mut all: Vec<NotLookedAt> = modules
        .gaps
        .iter()
        .map(|gap| NotLookedAt { what: format!("modules: {}", gap.what), why: gap.why.clone() })
        .collect();
    if modules.lost > 0 {
        let why = format!("{} of the list could not be read: {}", modules.lost, modules.end);
        all.push(NotLookedAt { what: "modules".into(), why });
    }
    all
}
