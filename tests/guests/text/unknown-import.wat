;; Asks for two things that no host of neap's kind offers, besides one that it does.
(component
  (import "wasi:keyvalue/store@0.2.0-draft" (instance (export "open" (func (param "identifier" string)))))
  (import "acme:printer/paper@1.0.0" (instance (export "feed" (func))))
  (import "wasi:random/insecure@0.2.0" (instance (export "get-insecure-random-u64" (func (result u64))))))
