package gotest

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOutputs(t *testing.T) {
	file := func(path string) Output { return Output{Path: path} }
	folder := func(path string) Output { return Output{Path: path, Dir: true} }
	tests := []struct {
		name string
		args []string
		env  map[string]string
		want []Output
	}{
		{"none", []string{"-test.v", "-test.run=X", "-test.count", "1"}, nil, nil},
		{
			"as go test has them",
			[]string{"-test.testlogfile=/w/b001/testlog.txt", "-test.paniconexit0", "-test.gocoverdir=/w/b001/gocoverdir", "-test.timeout=10m0s", "-test.coverprofile=/w/b001/_cover_.out"},
			nil,
			[]Output{file("/w/b001/_cover_.out"), folder("/w/b001/gocoverdir"), file("/w/b001/testlog.txt")},
		},
		{
			"profiles in a folder",
			[]string{"-test.outputdir=/out", "--test.cpuprofile", "cpu.prof", "-test.memprofile=/m", "-test.trace=t/trace", "-test.testlogfile=log", "-test.artifacts"},
			nil,
			[]Output{folder("/out/_artifacts"), file("/m"), file("/out/cpu.prof"), file("/out/t/trace"), file("/pkg/log")},
		},
		{
			"profiles here",
			[]string{"-test.blockprofile=b", "-test.mutexprofile=../m", "-test.artifacts=false"},
			nil,
			[]Output{file("/m"), file("/pkg/b")},
		},
		{"coverage of programs", []string{"-test.gocoverdir=cov"}, map[string]string{"GOCOVERDIR": "cov"}, []Output{folder("/pkg/cov")}},
		{
			"fuzzing",
			[]string{"-test.fuzz=F", "-test.fuzzcachedir=/cache/fuzz"},
			nil,
			[]Output{{Path: "/cache/fuzz", Dir: true, Input: true}, folder("/pkg/testdata/fuzz")},
		},
		{"seeds alone", []string{"-test.fuzzcachedir=/cache/fuzz"}, nil, nil},
		{"not the test's", []string{"-x", "--", "-test.cpuprofile=no"}, nil, nil},
		{"nothing behind it", []string{"-test.cpuprofile"}, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Outputs(tt.args, "/pkg", func(name string) string { return tt.env[name] })
			if len(tt.want) == 0 {
				require.Empty(t, got)
				return
			}
			require.ElementsMatch(t, tt.want, got)
			for i := range got[1:] {
				require.Less(t, got[i].Path, got[i+1].Path)
			}
		})
	}
}
