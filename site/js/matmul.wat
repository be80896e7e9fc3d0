;; y = w x + b in float32, for the convolutions of unet.js: the one loop that plain JavaScript runs five times slower.
;; It makes four outputs (rows of y) and four pixels (columns, the lanes) at a time. Row j of x begins where the j-th entry
;; of a table says, so the nine shifted copies of a channel are one array.
(module
  (memory (export "memory") 1)
  (func (export "multiply")
    (param $w i32)                      ;; weights: for each four outputs, for each row of x, four numbers
    (param $b i32)                      ;; a multiple of 4 biases, one for each output; they end where the table begins
    (param $rows i32)                   ;; table: where each row of x begins, in bytes after $x0
    (param $rowsEnd i32)
    (param $x0 i32) (param $width i32)  ;; of a row of x and y, in bytes, a multiple of 16
    (param $y i32)                      ;; less $x0
    (local $at i32) (local $row i32) (local $w0 i32) (local $to i32)
    (local $x v128) (local $p v128) (local $q v128) (local $r v128) (local $s v128)
    (loop $four
      (local.set $at (local.get $x0))
      (loop $pixels
        (local.set $p (v128.load32_splat (local.get $b)))
        (local.set $q (v128.load32_splat offset=4 (local.get $b)))
        (local.set $r (v128.load32_splat offset=8 (local.get $b)))
        (local.set $s (v128.load32_splat offset=12 (local.get $b)))
        (local.set $row (local.get $rows))
        (local.set $w0 (local.get $w))
        (loop $sum
          (local.set $x (v128.load (i32.add (i32.load (local.get $row)) (local.get $at))))
          (local.set $p (f32x4.add (local.get $p) (f32x4.mul (local.get $x) (v128.load32_splat (local.get $w0)))))
          (local.set $q (f32x4.add (local.get $q) (f32x4.mul (local.get $x) (v128.load32_splat offset=4 (local.get $w0)))))
          (local.set $r (f32x4.add (local.get $r) (f32x4.mul (local.get $x) (v128.load32_splat offset=8 (local.get $w0)))))
          (local.set $s (f32x4.add (local.get $s) (f32x4.mul (local.get $x) (v128.load32_splat offset=12 (local.get $w0)))))
          (local.set $w0 (i32.add (local.get $w0) (i32.const 16)))
          (br_if $sum (i32.lt_u (local.tee $row (i32.add (local.get $row) (i32.const 4))) (local.get $rowsEnd))))
        (local.set $to (i32.add (local.get $y) (local.get $at)))
        (v128.store (local.get $to) (local.get $p))
        (v128.store (local.tee $to (i32.add (local.get $to) (local.get $width))) (local.get $q))
        (v128.store (local.tee $to (i32.add (local.get $to) (local.get $width))) (local.get $r))
        (v128.store (i32.add (local.get $to) (local.get $width)) (local.get $s))
        (br_if $pixels (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 16))) (i32.add (local.get $x0) (local.get $width)))))
      (local.set $w (local.get $w0))
      (local.set $y (i32.add (local.get $y) (i32.shl (local.get $width) (i32.const 2))))
      (br_if $four (i32.lt_u (local.tee $b (i32.add (local.get $b) (i32.const 16))) (local.get $rows))))))
