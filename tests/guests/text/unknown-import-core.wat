;; A command that also wants a function from nowhere.
(module
  (import "env" "launch" (func $launch))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start") (call $launch)))
