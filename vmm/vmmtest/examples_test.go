package vmmtest_test

import (
	"testing"

	"github.com/huskvm/husk/vmm/vmmtest"
)

// t is that of the example which runs.
var t *testing.T

// TestExamples runs the examples where guests can be, as in the lab.
func TestExamples(test *testing.T) {
	vmmtest.Need(test)
	for _, example := range []struct {
		name string
		run  func()
	}{
		{"Start", ExampleStart},
		{"Need", ExampleNeed},
		{"Expect", ExampleVM_Expect},
		{"Run", ExampleVM_Run},
		{"Copy", ExampleVM_Copy},
		{"exec-test", Example_execTest},
	} {
		test.Run(example.name, func(test *testing.T) {
			t = test
			example.run()
		})
	}
}
