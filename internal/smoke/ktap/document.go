package ktap

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/huskvm/husk/internal/smoke/result"
)

var (
	// noise explains nothing: what KUnit and kselftest say of every test, and the
	// totals, which repeat the results.
	noise = regexp.MustCompile(`^(?:` + strings.Join([]string{
		`(?:\S+: )?(?:Totals: )?pass:\d+ fail:\d+ .*`, `module: \S+`, `\S+: (?:initializing|cleaning up|exiting)(?: suite)?`,
		`timeout set to \d+`, `overriding timeout to \d+`, `(?:OK|FAIL)\s+\S+`,
		`Starting \d+ tests from \d+ test cases\.`, `(?:PASSED|FAILED): \d+ / \d+ tests passed\.`,
	}, "|") + `)$`)
	// failedTest is how Perl's Test::More, and those like it, begin what they say
	// behind a result.
	failedTest = regexp.MustCompile(`^\s*Failed (?:\(TODO\) )?test\b|^\s*Looks like you `)
	// running is kselftest_harness.h's line before a test.
	running = regexp.MustCompile(`^\s*RUN\s+(\S+) \.\.\.$`)
)

// A document is what follows one version line.
type document struct {
	levels []*level // the outermost first
	out    *report
	over   bool // all that was planned has been seen
	result bool // the last line was a result, which a YAML block may follow
	yaml   int  // lines of a block so far; 0 outside of one
	indent int  // of that block
}

// newDocument begins with a version line, or with "# Subtest", which it does not
// take yet. Where that is indented, what it is in has no beginning of its own.
func newDocument(out *report, first item, at time.Duration) *document {
	root := newLevel(0, at)
	if first.depth < 2 {
		root.depth = first.depth
	} else {
		root.implied = true
	}
	return &document{levels: []*level{root}, out: out}
}

func (d *document) clone(out *report) *document {
	c := *d
	c.out = out
	c.levels = nil
	for _, l := range d.levels {
		c.levels = append(c.levels, l.clone())
	}
	return &c
}

func (d *document) top() *level { return d.levels[len(d.levels)-1] }

// take understands an item where it stands.
func (d *document) take(it item, at time.Duration) {
	if d.yaml > 0 && d.takeYAML(it) {
		return
	}
	behindResult := d.result
	d.result = it.kind == test
	switch it.kind {
	case header:
		if it.depth > d.levels[0].depth {
			d.push(it.depth, at)
		}
	case subtest:
		d.takeSubtest(it, at)
	case plan:
		d.takePlan(it, at)
	case test:
		d.takeTest(it, at)
	case bailOut:
		d.takeBailOut(it)
	default:
		if l := d.top(); behindResult && it.kind == other && strings.TrimSpace(it.text) == "---" && it.depth >= l.depth+2 {
			d.yaml, d.indent = 1, it.depth
			return
		}
		d.takeNote(it)
	}
}

// push begins a level, and ends those as deep.
func (d *document) push(depth int, at time.Duration) *level {
	d.pop(depth)
	if len(d.levels) >= maxDepth {
		return d.top()
	}
	parent := d.top()
	parent.abandon()
	l := newLevel(depth, at)
	l.name, parent.announced = parent.announced, ""
	l.notes, parent.notes = parent.notes, nil
	d.levels = append(d.levels, l)
	return l
}

// pop ends the levels of a depth and deeper; each waits in the one that it is in.
// The outermost stays.
func (d *document) pop(depth int) {
	for len(d.levels) > 1 && d.top().depth >= depth {
		l := d.top()
		notes := l.notes
		if l.complete() || l.planned < 0 {
			l.notes = nil // they explain the suite
		} else {
			notes = nil
		}
		l.close(d.where(), d.out)
		d.levels = d.levels[:len(d.levels)-1]
		parent := d.top()
		parent.abandon()
		parent.pending = l
		parent.notes = append(parent.notes, notes...)
		if l.skipped != "" {
			parent.notes = append(parent.notes, note{text: cut(l.skipped, maxNote), comment: true})
		}
	}
}

// at is the open level of a depth; deeper ones end. Nil where there is none.
func (d *document) at(depth int) *level {
	i := slices.IndexFunc(d.levels, func(l *level) bool { return l.depth == depth })
	if i < 0 {
		return nil
	}
	d.pop(depth + 1)
	return d.top()
}

// where is the names of the levels, for problems: "suite.case: ".
func (d *document) where() string {
	var names []string
	for _, l := range d.levels {
		if l.name != "" {
			names = append(names, l.name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return cut(strings.Join(names, "."), maxName) + ": "
}

// takeSubtest names a suite: the one that has begun at this depth or begins there,
// or, as TAP 14 has it, one that is going to begin deeper.
func (d *document) takeSubtest(it item, at time.Duration) {
	name := cut(it.text, maxName)
	top := d.top()
	switch {
	case it.depth > top.depth:
		d.push(it.depth, at).name = name
	case it.depth == top.depth && top.fresh() && len(d.levels) > 1:
		top.name = name
	default:
		if l := d.at(it.depth); l != nil {
			l.abandon()
			l.announced = name
		}
	}
}

func (d *document) takePlan(it item, at time.Duration) {
	if d.over {
		return
	}
	l := d.top()
	if it.depth > l.depth {
		l = d.push(it.depth, at) // a nested suite without a version line
	} else if l = d.at(it.depth); l == nil {
		return
	}
	if l.planned >= 0 && l.announced != "" && len(d.levels) > 1 {
		// Old KUnit: "# Subtest" was that of the next suite, and the result of the one
		// before it has not come.
		name := l.announced
		l.announced = ""
		l = d.push(it.depth, at)
		l.name = name
	}
	if l.planned >= 0 {
		d.out.problem(fmt.Sprintf("%splanned twice: 1..%d, then 1..%d", d.where(), l.planned, it.number))
		return
	}
	l.planned = it.number
	if it.number == 0 && it.directive.word == "SKIP" {
		l.skipped = "SKIP"
		if it.directive.text != "" {
			l.skipped = it.directive.text
		}
	}
	d.settle()
}

// settle ends the document where all that was planned has been seen.
func (d *document) settle() {
	root := d.levels[0]
	if len(d.levels) == 1 && (root.complete() || root.implied && root.own > 0) {
		d.over = true
	}
}

func (d *document) takeTest(it item, at time.Duration) {
	l := d.top()
	if it.depth > l.depth {
		// TAP 14 lets a nested suite begin with its first test, if that is indented.
		if d.over || it.quoted || it.number != 1 || it.depth < l.depth+2 {
			d.takeNote(item{kind: other, text: it.line})
			return
		}
		l = d.push(it.depth, at)
	} else if l = d.levelOf(it); l == nil {
		d.takeNote(item{kind: other, text: it.line})
		return
	}
	number := it.number
	if number < 0 {
		number = l.next
	}
	if d.over && number != l.next {
		return // it is somebody else's, most likely
	}
	if l.seen[number] {
		d.out.problem(fmt.Sprintf("%stest %d reported twice", d.where(), number))
	} else {
		l.own++
	}
	l.next = number + 1
	if !d.out.full {
		l.seen[number] = true
	}
	l.record(it, number, at, d.out)
	d.settle()
}

// levelOf is the level that a result is of, and ends deeper ones. A number that is
// neither planned nor the next is somebody else's. (The suites of a kernel's modules
// were numbered through before Linux 6.6.5, each with a plan of its own for one.)
func (d *document) levelOf(it item) *level {
	i := slices.IndexFunc(d.levels, func(l *level) bool { return l.depth == it.depth })
	if i < 0 {
		return nil
	}
	l := d.levels[i]
	if l.planned >= 0 && it.number > l.planned && it.number != l.next {
		named := l.pending != nil && l.pending.name == it.text || i+1 < len(d.levels) && d.levels[i+1].name == it.text
		if !named {
			return nil
		}
	}
	d.pop(it.depth + 1)
	return l
}

// record adds a result to its level.
func (l *level) record(it item, number int, at time.Duration, r *report) {
	t := result.Subtest{Name: it.text, OK: it.ok, At: at, Duration: max(at-l.since, 0)}
	dir := it.directive
	switch dir.word {
	case "SKIP":
		t.Skip = true
	case "TODO", "XFAIL", "XPASS":
		t.Todo = true
	}
	if t.Name == "" {
		t.Name = l.current
	}
	if t.Name == "" && dir.word != "" && dir.text != "" {
		t.Name, dir.text = dir.text, "" // as kselftest.h has it: "ok 3 # SKIP name"
	}
	if t.Name == "" {
		t.Name = fmt.Sprintf("test %d", number)
	}
	t.Name = cut(t.Name, maxName)
	t.Detail = l.detail(t.Failed(), dir, r)
	nested, failed := l.absorb(t.Name)
	// A suite that says no more than its tests do is not a test of its own.
	if (!nested || t.Failed() && (!failed || dir.word != "")) && r.keep() {
		l.tests = append(l.tests, t)
	}
	l.since, l.current, l.behind, l.announced = at, "", false, ""
}

func (d *document) takeBailOut(it item) {
	if d.over {
		return
	}
	l := d.at(it.depth)
	if l == nil {
		d.takeNote(item{kind: comment, text: it.line})
		return
	}
	d.out.problem(strings.TrimSpace(d.where() + "bail out: " + cut(it.text, maxNote)))
	l.abandon()
	l.lost("Bail out!", cut(it.text, maxNote), d.out)
	if len(d.levels) > 1 {
		d.pop(it.depth)
		return
	}
	d.over = true
}

// takeNote keeps what explains a test.
func (d *document) takeNote(it item) {
	l := d.top()
	text := strings.TrimSpace(it.text)
	if text == "" || it.kind == comment && noise.MatchString(head(text)) {
		return
	}
	if it.kind == comment {
		if m := running.FindStringSubmatch(head(text)); m != nil {
			l.current = m[1]
			return
		}
		if name, ok := strings.CutPrefix(text, "selftests: "); ok && l.announced == "" && l.pending == nil {
			l.announced = "selftests: " + cut(name, maxName)
			return
		}
		if failedTest.MatchString(head(it.text)) {
			l.behind = true
		}
	}
	if d.over && !l.behind {
		return
	}
	l.explain(note{text: strings.TrimRight(it.text, " \t"), comment: it.kind == comment}, d.out)
}

// takeYAML keeps a line of the block behind a result. A block that does not end is
// left at the next result.
func (d *document) takeYAML(it item) bool {
	l := d.top()
	text := strings.TrimSpace(it.text)
	end := text == "..." && it.depth <= d.indent
	if end || it.kind == test && it.depth <= l.depth || it.kind == header || d.yaml > maxNotes {
		d.yaml = 0
		return end
	}
	d.yaml++
	if last := len(l.tests) - 1; last >= 0 && it.kind == other && !d.out.crowded(len(text)) {
		t := &l.tests[last]
		line := strings.TrimPrefix(it.text, strings.Repeat(" ", d.indent))
		t.Detail = strings.TrimPrefix(t.Detail+"\n"+cut(line, maxNote), "\n")
	}
	return true
}

// end hands all that was found to the report.
func (d *document) end() {
	root := d.levels[0]
	d.pop(root.depth + 1)
	if root.own == 0 && root.planned < 0 && root.pending == nil && !d.out.cut {
		d.out.problem("a version line, and no test behind it")
	}
	root.close(d.where(), d.out)
	if root.skipped != "" && d.out.keep() {
		root.tests = append(root.tests, result.Subtest{Name: "all tests", OK: true, Skip: true, Detail: root.skipped})
	}
	d.out.tests = append(d.out.tests, root.tests...)
}
