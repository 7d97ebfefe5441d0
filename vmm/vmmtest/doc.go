// Package vmmtest boots kernels in Go tests.
package vmmtest
