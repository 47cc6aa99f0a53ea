//! The compile child as a program of its own; see `neap_wasm_runtime::compile::child_main`. Nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    neap_wasm_runtime::compile::child_main()
}
