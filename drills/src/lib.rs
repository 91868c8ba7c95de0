//! Rehearses kernel failures, from the panic to the unpacked evidence.
