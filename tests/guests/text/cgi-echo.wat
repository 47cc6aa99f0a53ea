;; CGI: a response head of its own, then the environment, a line per variable, then what stands on stdin.
(module
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 4)
  (data (i32.const 1024) "Status: 201 Created\r\nContent-Type: text/plain\r\nX-Guest: cgi\r\nConnection: close\r\n\r\n")

  ;; Writes all of [at, at + length) to stdout.
  (func $write (param $at i32) (param $length i32)
    (loop $again
      (if (i32.eqz (local.get $length)) (then (return)))
      (i32.store (i32.const 0) (local.get $at))
      (i32.store (i32.const 4) (local.get $length))
      (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)) (then (unreachable)))
      (local.set $at (i32.add (local.get $at) (i32.load (i32.const 8))))
      (local.set $length (i32.sub (local.get $length) (i32.load (i32.const 8))))
      (br $again)))

  (func (export "_start") (local $at i32) (local $end i32)
    (call $write (i32.const 1024) (i32.const 83))
    ;; The environment lies at 65536, its pointers at 32768; zero bytes become line ends.
    (drop (call $environ_sizes_get (i32.const 16) (i32.const 20)))
    (drop (call $environ_get (i32.const 32768) (i32.const 65536)))
    (local.set $at (i32.const 65536))
    (local.set $end (i32.add (i32.const 65536) (i32.load (i32.const 20))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (if (i32.eqz (i32.load8_u (local.get $at))) (then (i32.store8 (local.get $at) (i32.const 10))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
    (call $write (i32.const 65536) (i32.load (i32.const 20)))
    (block $eof
      (loop $more
        (i32.store (i32.const 0) (i32.const 131072))
        (i32.store (i32.const 4) (i32.const 65536))
        (if (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 12)) (then (unreachable)))
        (br_if $eof (i32.eqz (i32.load (i32.const 12))))
        (call $write (i32.const 131072) (i32.load (i32.const 12)))
        (br $more)))))
