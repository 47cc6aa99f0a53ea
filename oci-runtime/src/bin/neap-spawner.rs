//! The spawner as an executable of its own, for this crate's tests; the product starts `neap __spawner` instead.

fn main() -> std::process::ExitCode {
    neap_oci_runtime::spawner::child_main()
}
