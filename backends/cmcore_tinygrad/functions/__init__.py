"""The functions of the Array API namespace, by topic; each takes and gives bare tinygrad Tensors."""
