// Package inguest is a package whose tests run in a guest, by husk exec-test: see
// tests/boot.
package inguest

// Sign is the sign of n.
func Sign(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}
