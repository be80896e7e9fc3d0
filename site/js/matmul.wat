;; y = w x + b in float32, for the convolutions of unet.js: the one loop that plain JavaScript runs five times slower.
;; It makes four outputs (rows of y) and eight pixels (columns) at a time, in lanes of four. Row j of x begins where the
;; j-th entry of a table says, so the nine shifted copies of a channel are one array.
(module
  (memory (export "memory") 1)
  (func (export "multiply")
    (param $outputs i32)                ;; how many, a multiple of 4
    (param $rows i32)                   ;; table: where each row of x begins, in bytes
    (param $rowsEnd i32)
    (param $width i32)                  ;; of a row of x and y, in bytes, a multiple of 32
    (param $w i32)                      ;; weights: for each four outputs, for each row of x, four numbers
    (param $b i32) (param $y i32)
    (local $last i32) (local $at i32) (local $row i32) (local $w0 i32) (local $to i32)
    (local $s v128) (local $t v128) (local $v v128)
    (local $a0 v128) (local $a1 v128) (local $b0 v128) (local $b1 v128)
    (local $c0 v128) (local $c1 v128) (local $d0 v128) (local $d1 v128)
    (local.set $last (i32.add (local.get $b) (i32.shl (local.get $outputs) (i32.const 2))))
    (loop $four
      (local.set $at (i32.const 0))
      (loop $eight
        (local.set $a0 (v128.load32_splat (local.get $b)))           (local.set $a1 (local.get $a0))
        (local.set $b0 (v128.load32_splat offset=4 (local.get $b)))  (local.set $b1 (local.get $b0))
        (local.set $c0 (v128.load32_splat offset=8 (local.get $b)))  (local.set $c1 (local.get $c0))
        (local.set $d0 (v128.load32_splat offset=12 (local.get $b))) (local.set $d1 (local.get $d0))
        (local.set $row (local.get $rows))
        (local.set $w0 (local.get $w))
        (loop $sum
          (local.set $to (i32.add (i32.load (local.get $row)) (local.get $at)))
          (local.set $s (v128.load (local.get $to)))
          (local.set $t (v128.load offset=16 (local.get $to)))
          (local.set $v (v128.load32_splat (local.get $w0)))
          (local.set $a0 (f32x4.add (local.get $a0) (f32x4.mul (local.get $s) (local.get $v))))
          (local.set $a1 (f32x4.add (local.get $a1) (f32x4.mul (local.get $t) (local.get $v))))
          (local.set $v (v128.load32_splat offset=4 (local.get $w0)))
          (local.set $b0 (f32x4.add (local.get $b0) (f32x4.mul (local.get $s) (local.get $v))))
          (local.set $b1 (f32x4.add (local.get $b1) (f32x4.mul (local.get $t) (local.get $v))))
          (local.set $v (v128.load32_splat offset=8 (local.get $w0)))
          (local.set $c0 (f32x4.add (local.get $c0) (f32x4.mul (local.get $s) (local.get $v))))
          (local.set $c1 (f32x4.add (local.get $c1) (f32x4.mul (local.get $t) (local.get $v))))
          (local.set $v (v128.load32_splat offset=12 (local.get $w0)))
          (local.set $d0 (f32x4.add (local.get $d0) (f32x4.mul (local.get $s) (local.get $v))))
          (local.set $d1 (f32x4.add (local.get $d1) (f32x4.mul (local.get $t) (local.get $v))))
          (local.set $w0 (i32.add (local.get $w0) (i32.const 16)))
          (br_if $sum (i32.lt_u (local.tee $row (i32.add (local.get $row) (i32.const 4))) (local.get $rowsEnd))))
        (local.set $to (i32.add (local.get $y) (local.get $at)))
        (v128.store (local.get $to) (local.get $a0))
        (v128.store offset=16 (local.get $to) (local.get $a1))
        (v128.store (local.tee $to (i32.add (local.get $to) (local.get $width))) (local.get $b0))
        (v128.store offset=16 (local.get $to) (local.get $b1))
        (v128.store (local.tee $to (i32.add (local.get $to) (local.get $width))) (local.get $c0))
        (v128.store offset=16 (local.get $to) (local.get $c1))
        (v128.store (local.tee $to (i32.add (local.get $to) (local.get $width))) (local.get $d0))
        (v128.store offset=16 (local.get $to) (local.get $d1))
        (br_if $eight (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 32))) (local.get $width))))
      (local.set $w (local.get $w0))
      (local.set $y (i32.add (local.get $y) (i32.shl (local.get $width) (i32.const 2))))
      (br_if $four (i32.lt_u (local.tee $b (i32.add (local.get $b) (i32.const 16))) (local.get $last))))))
