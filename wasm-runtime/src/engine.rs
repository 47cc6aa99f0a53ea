//! The wasmtime engine: one configuration for compiling and running, the instance pool, and the one thread that
//! advances the clock by which busy guests are interrupted. It knows nothing of what is run.

use crate::error::EngineError;
use neap_sdk::limits;
use sha2::{Digest as _, Sha256};
use std::{
    hash::{Hash as _, Hasher},
    thread,
    time::Duration,
};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy};

/// Sizes of the instance pool that are tried, the largest first: each instance reserves 4 GiB of address space.
const POOL_SIZES: [u32; 4] = [limits::WASM_CALLS_AT_ONCE_MAX, 256, 64, 16];

/// Whatever decides how native code looks; the compile child and the server must agree on it.
fn config() -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .wasm_component_model(true)
        .wasm_component_model_async(true)
        .epoch_interruption(true)
        .memory_init_cow(true)
        // A guest's stack must not show what the last guest left on it.
        .async_stack_zeroing(true);
    config
}

/// An engine that compiles and never runs, so that it reserves nothing.
pub(crate) fn compiling() -> wasmtime::Result<Engine> {
    Engine::new(&config())
}

/// An engine that runs: with the largest pool that the address space holds, and a ticker.
pub(crate) fn running() -> Result<Engine, EngineError> {
    let mut reason = String::new();
    for calls in POOL_SIZES {
        match Engine::new(config().allocation_strategy(InstanceAllocationStrategy::Pooling(pool(calls)))) {
            Ok(engine) => {
                if calls < limits::WASM_CALLS_AT_ONCE_MAX {
                    tracing::warn!(calls, reason, "little address space; fewer Wasm invocations run at once");
                }
                start_ticker(&engine)?;
                return Ok(engine);
            }
            Err(error) => reason = format!("{error:#}"),
        }
    }
    Err(EngineError::Engine(reason))
}

/// A pool for so many invocations. A component is a few core instances with a table each, and a 0.3 guest uses more
/// stacks than one.
fn pool(calls: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(calls)
        .total_core_instances(calls * 8)
        .total_memories(calls)
        .total_tables(calls * 4)
        .total_stacks(calls * 2)
        .max_component_instance_size(8 << 20)
        .max_core_instance_size(8 << 20)
        .table_elements(limits::WASM_TABLE_ELEMENTS_MAX)
        .max_memories_per_module(4)
        .max_tables_per_module(4)
        // Pages are cleared, not given back: a fault costs ten times what clearing a page does.
        .linear_memory_keep_resident(limits::WASM_MEMORY_KEPT_BYTES)
        .table_keep_resident(limits::WASM_TABLE_KEPT_BYTES)
        .async_stack_keep_resident(limits::WASM_STACK_KEPT_BYTES)
        .pagemap_scan(if swaps() { Enabled::No } else { Enabled::Auto });
    pool
}

/// Whether this machine swaps. The scan that finds a guest's dirty pages does not see those that were swapped out,
/// in wasmtime 48.0, so that the next guest would; without the scan all pages are cleared, which costs more time.
fn swaps() -> bool {
    // One line is the heading.
    std::fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1)
}

/// Starts the thread that advances the engine's clock; it ends when the engine is gone.
fn start_ticker(engine: &Engine) -> Result<(), EngineError> {
    let engine = engine.weak();
    let tick = Duration::from_millis(limits::EPOCH_TICK_MS);
    let run = move || {
        loop {
            thread::sleep(tick);
            let Some(engine) = engine.upgrade() else { break };
            engine.increment_epoch();
        }
    };
    thread::Builder::new().name("neap-epoch".into()).spawn(run).map(drop).map_err(EngineError::Ticker)
}

/// Names the compiler's version and everything in the configuration that native code depends on.
pub(crate) fn fingerprint(engine: &Engine) -> String {
    struct Sha(Sha256);
    impl Hasher for Sha {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        fn finish(&self) -> u64 {
            0
        }
    }
    let mut hasher = Sha(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    let hash: [u8; 32] = hasher.0.finalize().into();
    neap_sdk::Digest::from_sha256(hash).hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_the_child_fits_the_server() {
        let running = running().expect("engine");
        assert_eq!(fingerprint(&compiling().expect("engine")), fingerprint(&running));
    }
}
