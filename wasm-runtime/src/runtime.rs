//! The handle that ties engine, compiler and cache together: from a file to a program that can be called.

use crate::{
    cache::{Cache, CacheError},
    compile::{Compiler, Format},
    engine,
    error::{EngineError, PrepareError},
    program::{Linkers, Program},
};
use neap_sdk::{Digest, artifact::ArtifactKind};
use std::{
    collections::HashMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};
use wasmtime::Engine;

/// What the runtime is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where native code is kept; made if missing, and the runtime's alone.
    pub cache_dir: PathBuf,
    /// The compile child: a program and arguments after which [`crate::compile::child_main`] runs, for example
    /// `[exe, "__compile"]`. Input and output are appended.
    pub compiler: Vec<OsString>,
}

/// Runs Wasm. Cheap to clone.
#[derive(Clone)]
pub struct WasmRuntime(Arc<Inner>);

struct Inner {
    engine: Engine,
    linkers: Linkers,
    compiler: Compiler,
    cache: Cache,
    /// One lock per program that is being prepared, so that it is compiled once however many ask.
    preparing: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

impl WasmRuntime {
    /// Starts the engine and opens the cache. Reserves address space: 4 GiB for each of the invocations that may
    /// run at once.
    ///
    /// # Errors
    /// When the cache's folder cannot be used, or there is too little address space for even a few invocations.
    pub fn new(settings: Settings) -> Result<Self, EngineError> {
        let compiler = Compiler::new(settings.compiler).ok_or(EngineError::NoCompiler)?;
        let engine = engine::running()?;
        let cache = Cache::open(settings.cache_dir, engine::fingerprint(&engine))
            .map_err(|CacheError { path, source }| EngineError::Cache { path, source })?;
        let linkers = Linkers::new(&engine).map_err(|error| EngineError::Engine(format!("{error:#}")))?;
        Ok(Self(Arc::new(Inner { engine, linkers, compiler, cache, preparing: Mutex::default() })))
    }

    /// Proves that a program can run here: compiles it unless that is done, and checks its imports and exports.
    /// Idempotent, and cheap when the code is there. `digest` is that of the file's bytes.
    ///
    /// # Errors
    /// What [`Self::load`] gives.
    pub async fn prepare(&self, digest: Digest, wasm: &Path) -> Result<ArtifactKind, PrepareError> {
        self.load(digest, wasm).await.map(|program| program.kind())
    }

    /// Maps the program's native code and links it; code that is missing, corrupt or foreign is built first.
    /// Needs a tokio runtime with I/O and time. Dropping the future ends a compilation.
    ///
    /// # Errors
    /// When the file is no Wasm, exports no handler or imports what the host lacks; when compiling fails or hits
    /// its limits; when the cache cannot be written.
    pub async fn load(&self, digest: Digest, wasm: &Path) -> Result<Program, PrepareError> {
        let turn = self.0.turn(digest);
        let _turn = turn.lock().await;
        let path = wasm.to_owned();
        let (format, found) = self
            .blocking(move |inner| {
                let format = Format::of_file(&path)?;
                Ok((format, inner.cache.find(&digest).map_err(cache_error)?))
            })
            .await?;
        let code = match found {
            Some(code) => code,
            None => self.build(digest, wasm).await?,
        };
        self.blocking(move |inner| inner.linkers.link(&inner.engine, format, &code)).await
    }

    /// Forgets a program's native code. Programs that are loaded go on.
    ///
    /// # Errors
    /// When the files cannot be removed.
    pub async fn forget(&self, digest: Digest) -> Result<(), PrepareError> {
        let turn = self.0.turn(digest);
        let _turn = turn.lock().await;
        self.blocking(move |inner| inner.cache.remove(&digest).map_err(cache_error)).await
    }

    /// Compiles and keeps. What was kept is read back and checked like any other code.
    async fn build(&self, digest: Digest, wasm: &Path) -> Result<fs::File, PrepareError> {
        let path = wasm.to_owned();
        self.blocking(move |_| check_digest(digest, &path)).await?;
        let scratch = self.0.cache.scratch().map_err(cache_error)?;
        self.0.compiler.compile(wasm, &scratch.output).await?;
        self.blocking(move |inner| {
            inner.cache.keep(&digest, &scratch.output).map_err(cache_error)?;
            let found = inner.cache.find(&digest).map_err(cache_error)?;
            found.ok_or_else(|| inner.compiler.failed("its output changed while it was kept".into()))
        })
        .await
    }

    /// Runs work that reads whole files away from the runtime's threads.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, PrepareError> + Send + 'static,
    ) -> Result<T, PrepareError> {
        let inner = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.unwrap_or_else(|error| {
            Err(self.0.compiler.failed(format!("its output could not be read: {error}")))
        })
    }
}

impl Inner {
    fn turn(&self, digest: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut preparing = self.preparing.lock().unwrap_or_else(PoisonError::into_inner);
        preparing.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = preparing.get(&digest).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        preparing.insert(digest, Arc::downgrade(&turn));
        turn
    }
}

/// What runs is what was verified: the bytes that are compiled must be those that the digest was made of.
fn check_digest(digest: Digest, path: &Path) -> Result<(), PrepareError> {
    let bytes = fs::read(path).map_err(|source| PrepareError::Read { path: path.to_owned(), source })?;
    if Digest::of(&bytes) == digest {
        return Ok(());
    }
    Err(PrepareError::Changed { path: path.to_owned(), digest })
}

fn cache_error(CacheError { path, source }: CacheError) -> PrepareError {
    PrepareError::Cache { path, source }
}
