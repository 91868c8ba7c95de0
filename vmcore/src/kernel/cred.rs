//! Who a task is: `struct cred`.

use super::value::view;

view! {
    /// Whom a task acts for, in numbers of the first user namespace.
    #[derive(Copy, PartialEq, Eq)]
    pub struct Credentials of "cred" {
        /// Who started it.
        pub uid: u32 = ["uid"],
        /// The group of who started it.
        pub gid: u32 = ["gid"],
        /// Whose rights it has: `USER` of `ps`.
        pub euid: u32 = ["euid"],
        /// The group whose rights it has.
        pub egid: u32 = ["egid"],
    }
}
