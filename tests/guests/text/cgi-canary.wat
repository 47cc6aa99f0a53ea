;; Looks for anything that another guest left in its memory, says "clean" or traps, and leaves as much as it can.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 64)
  (data (i32.const 16) "clean\n")
  ;; Traps unless [from, to) is zero, then fills it.
  (func $search (param $from i32) (param $to i32) (local $at i32)
    (local.set $at (local.get $from))
    (loop $next
      (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then (unreachable)))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $to))))
    (memory.fill (local.get $from) (i32.const 0xaa) (i32.sub (local.get $to) (local.get $from))))
  (func (export "_start")
    (call $search (i32.const 1024) (i32.const 4194304))
    (drop (memory.grow (i32.const 16)))
    (call $search (i32.const 4194304) (i32.const 5242880))
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 6))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
