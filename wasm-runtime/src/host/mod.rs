//! What the host offers to guests. One file per capability, named as in `neap_sdk::capability::Capability`.
//!
//! Everything is linked and little is granted: a guest finds `wasi:filesystem` and `wasi:sockets`, because the
//! libraries of most languages ask for them at start, but no folder and no address is ever open to it.

pub(crate) mod cli;
pub(crate) mod outbound_http;

use crate::call::Grants;
use crate::meter::Memory;
use neap_sdk::limits;
use outbound_http::Outbound;
use std::sync::Arc;
use wasmtime::{Engine, component};
use wasmtime_wasi::{ResourceTable, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView, p1::WasiP1Ctx};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

/// What one invocation of a component has on the host's side.
pub(crate) struct ComponentState {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outbound: Outbound,
    pub(crate) memory: Memory,
}

impl ComponentState {
    pub(crate) fn new(grants: Arc<Grants>, memory: Memory) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits::WASM_RESOURCES_MAX);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(limits::WASM_FIELDS_BYTES_MAX);
        let mut wasi = basics();
        cli::grant(&mut wasi, &grants);
        Self { table, wasi: wasi.build(), http, outbound: Outbound::new(grants), memory }
    }
}

impl WasiView for ComponentState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for ComponentState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outbound }
    }
}

/// What one invocation of a core module has on the host's side.
pub(crate) struct ModuleState {
    wasi: WasiP1Ctx,
    pub(crate) memory: Memory,
}

impl ModuleState {
    /// `wasi` already has the request: its environment and its standard streams.
    pub(crate) fn new(mut wasi: WasiCtxBuilder, memory: Memory) -> Self {
        Self { wasi: wasi.build_p1(), memory }
    }
}

/// Clocks and random numbers, and nothing else: no folder, no address, no name.
pub(crate) fn basics() -> WasiCtxBuilder {
    let mut wasi = WasiCtx::builder();
    wasi.max_random_size(limits::WASM_RANDOM_BYTES_MAX)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false);
    wasi
}

/// Everything that a component may import, in both versions of WASI: a guest may use one within the other.
pub(crate) fn component_linker(engine: &Engine) -> wasmtime::Result<component::Linker<ComponentState>> {
    let mut linker = component::Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// Everything that a core module may import.
pub(crate) fn module_linker(engine: &Engine) -> wasmtime::Result<wasmtime::Linker<ModuleState>> {
    let mut linker = wasmtime::Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |state: &mut ModuleState| &mut state.wasi)?;
    Ok(linker)
}

#[cfg(test)]
mod tests {
    use neap_sdk::capability::Capability;

    #[test]
    fn there_is_a_file_for_each_capability() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/host");
        let files = std::fs::read_dir(folder).expect("host folder").map(|entry| entry.expect("entry").path());
        let stems = files.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
        let mut names: Vec<_> = stems.filter(|stem| stem != "mod").collect();
        names.sort();
        assert_eq!(names, Capability::ALL.map(Capability::name));
    }
}
