//! A program that is ready to be called: what it is, which of its imports the host has, and its code, linked once.
//! Nothing here runs a guest.

use crate::{
    compile::Format,
    error::PrepareError,
    host::{self, ComponentState, ModuleState},
};
use neap_sdk::artifact::ArtifactKind;
use std::{fs, os::fd::AsRawFd as _, sync::Arc};
use wasmtime::{
    Engine, Module,
    component::{self, Component, types::ComponentItem},
};
use wasmtime_wasi_http::{p2::bindings::ProxyPre, p3::bindings::ServicePre};

/// The versions of WASI that the linked libraries define; any patch version of the same minor one fits.
const WASI_2: &str = "0.2.12";
const WASI_3: &str = "0.3.0";

/// A program that can be called. Cheap to clone; its code lives as long as any clone.
#[derive(Clone)]
pub struct Program(pub(crate) Entry);

/// How a program is entered.
#[derive(Clone)]
pub(crate) enum Entry {
    /// Through a handler of `wasi:http`.
    Component(Arc<Handler>),
    /// Through `_start` of a preview 1 command, in CGI style.
    Command(Arc<wasmtime::InstancePre<ModuleState>>),
}

/// The handler that a component exports.
pub(crate) enum Handler {
    /// `wasi:http/incoming-handler` 0.2.
    Http2(ProxyPre<ComponentState>),
    /// `wasi:http/handler` 0.3.
    Http3(ServicePre<ComponentState>),
}

impl Program {
    /// What the program is.
    pub fn kind(&self) -> ArtifactKind {
        match self.0 {
            Entry::Component(_) => ArtifactKind::WasmComponent,
            Entry::Command(_) => ArtifactKind::WasmModule,
        }
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Program").field(&self.kind()).finish()
    }
}

/// The host's side of every program, made once.
pub(crate) struct Linkers {
    components: component::Linker<ComponentState>,
    modules: wasmtime::Linker<ModuleState>,
}

impl Linkers {
    pub(crate) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        Ok(Self { components: host::component_linker(engine)?, modules: host::module_linker(engine)? })
    }

    /// Maps native code and links it.
    ///
    /// # Errors
    /// `NoHandler`, `MissingImports` and `Incompatible` for what the artifact lacks; `Invalid` where the engine
    /// does not take the code.
    pub(crate) fn link(
        &self,
        engine: &Engine,
        format: Format,
        code: &fs::File,
    ) -> Result<Program, PrepareError> {
        // The engine opens the file itself; through this name it opens the very file whose MAC was checked.
        let path = format!("/proc/self/fd/{}", code.as_raw_fd());
        let not_taken = |error: wasmtime::Error| PrepareError::Invalid(format!("{error:#}"));
        let entry = match format {
            Format::Component => {
                // SAFETY: `deserialize_file` trusts that the bytes are what this engine's compiler made and that
                // they do not change while mapped. Their MAC was checked under a key that only this cache has, and
                // covers bytes that our own compile child wrote; the file lies in a folder of mode 0700 and is
                // only ever replaced by renaming, never written in place.
                #[expect(unsafe_code, reason = "mapping native code is unsafe by nature")]
                let component = unsafe { Component::deserialize_file(engine, path) }.map_err(not_taken)?;
                Entry::Component(Arc::new(self.link_component(engine, &component)?))
            }
            Format::Module => {
                // SAFETY: as above.
                #[expect(unsafe_code, reason = "mapping native code is unsafe by nature")]
                let module = unsafe { Module::deserialize_file(engine, path) }.map_err(not_taken)?;
                Entry::Command(Arc::new(self.link_module(&module)?))
            }
        };
        Ok(Program(entry))
    }

    fn link_component(&self, engine: &Engine, component: &Component) -> Result<Handler, PrepareError> {
        let component_type = component.component_type();
        let exports: Vec<String> = component_type.exports(engine).map(|(name, _)| name.to_owned()).collect();
        let linked = self.components.instantiate_pre(component);
        let linked = linked.map_err(|error| self.explain(engine, component, &error))?;
        let other = |error: wasmtime::Error| PrepareError::Incompatible(format!("{error:#}"));
        let exports_any = |prefix: &str| exports.iter().any(|name| name.starts_with(prefix));
        if exports_any("wasi:http/handler@0.3.") {
            return ServicePre::new(linked).map(Handler::Http3).map_err(other);
        }
        if exports_any("wasi:http/incoming-handler@0.2.") {
            return ProxyPre::new(linked).map(Handler::Http2).map_err(other);
        }
        let exports = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
        Err(PrepareError::NoHandler(format!(
            "the component exports {exports}; a function must export wasi:http/incoming-handler@0.2 or \
             wasi:http/handler@0.3"
        )))
    }

    /// Says why a component cannot be linked: every import that the host lacks, or else what differs.
    fn explain(&self, engine: &Engine, component: &Component, error: &wasmtime::Error) -> PrepareError {
        let component_type = component.component_type();
        let imports = component_type.imports(engine);
        let lacking = imports.filter(|(name, import)| match import.ty {
            // A type alone asks for nothing that runs.
            ComponentItem::Type(_) => false,
            _ => !self.offers(name),
        });
        let lacking: Vec<String> = lacking.map(|(name, _)| name.to_owned()).collect();
        if lacking.is_empty() {
            PrepareError::Incompatible(format!("{error:#}"))
        } else {
            PrepareError::MissingImports(lacking)
        }
    }

    /// Whether the host has an interface of this name, in any compatible version.
    fn offers(&self, import: &str) -> bool {
        let Some((interface, version)) = import.split_once('@') else { return false };
        let linked = match version {
            version if version.starts_with("0.2.") && !version.contains('-') => WASI_2,
            version if version.starts_with("0.3.") && !version.contains('-') => WASI_3,
            _ => return false,
        };
        // A linker cannot be asked what it has, but it refuses to define a name twice.
        let name = format!("{interface}@{linked}");
        self.components.clone().root().func_wrap(&name, |_, (): ()| Ok(())).is_err()
    }

    fn link_module(&self, module: &Module) -> Result<wasmtime::InstancePre<ModuleState>, PrepareError> {
        let starts = module.get_export("_start").is_some_and(|export| {
            export.func().is_some_and(|func| func.params().len() == 0 && func.results().len() == 0)
        });
        if !starts {
            return Err(PrepareError::NoHandler(
                "the core module exports no function _start; a function is a WASI preview 1 command, or a component".into(),
            ));
        }
        // As for components: what can be defined is not there yet.
        let lacks = |import: &wasmtime::ImportType<'_>| {
            self.modules.clone().func_wrap(import.module(), import.name(), || ()).is_ok()
        };
        let lacking =
            module.imports().filter(lacks).map(|import| format!("{}::{}", import.module(), import.name()));
        let lacking: Vec<String> = lacking.collect();
        if !lacking.is_empty() {
            return Err(PrepareError::MissingImports(lacking));
        }
        let linked = self.modules.instantiate_pre(module);
        linked.map_err(|error| PrepareError::Incompatible(format!("{error:#}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_versions_are_those_that_are_linked() {
        let engine = crate::engine::compiling().expect("engine");
        let linkers = Linkers::new(&engine).expect("linkers");
        for import in [
            "wasi:cli/environment@0.2.0",
            "wasi:http/outgoing-handler@0.2.3",
            "wasi:io/streams@0.2.99",
            "wasi:cli/stdout@0.3.0",
            "wasi:http/client@0.3.2",
        ] {
            assert!(linkers.offers(import), "{import}");
        }
        for import in
            ["wasi:keyvalue/store@0.2.0-draft", "wasi:http/client@0.2.0", "wasi:cli/stdout@0.4.0", "x"]
        {
            assert!(!linkers.offers(import), "{import}");
        }
    }
}
