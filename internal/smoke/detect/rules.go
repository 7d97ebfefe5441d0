package detect

import (
	"regexp"
	"strings"
)

// A rule is a line with which the kernel begins a report.
type rule struct {
	kind  Kind
	has   string // what the line contains, to pass over most lines at little cost
	shape *regexp.Regexp
	ends  marker // what ends the report; none: the first lines that are no part of a dump
	// stamped rules are too short for a line without the kernel's stamp.
	stamped bool
	// dies is that the exception's own header follows, as "Oops: 0000 [#1]".
	dies bool
	// fatal is that the machine does not go on.
	fatal bool
}

// A marker is a line that ends a report.
type marker uint8

const (
	noMarker  marker = iota
	endTrace         // "---[ end trace": kernel/panic.c, print_oops_end_marker
	endOops          // that, and then the registers once more: arch/x86/kernel/dumpstack.c
	equals           // a line of "=": the sanitizers
	endPanic         // "---[ end Kernel panic", or that the machine is rebooted: kernel/panic.c
	oomKilled        // whom the OOM killer chose: mm/oom_kill.c
)

// The header of an exception: "invalid opcode: 0000 [#1] PREEMPT SMP". Behind the
// "#" is a count. Since Linux 6.10, "Oops: " stands before all of them.
const header = `.*: [0-9a-f]{4,16} \[#\d+\]`

func shape(expr string) *regexp.Regexp { return regexp.MustCompile("^(?:" + expr + ")") }

// rules are tried in their order; the first that fits is taken. They are for Linux
// 4.19 to 7.0.
var rules = []rule{
	// kernel/exit.c, init/main.c, init/do_mounts.c, mm/oom_kill.c; kernel/panic.c
	{kind: InitKilled, has: "Kernel panic", shape: shape(`Kernel panic - not syncing: Attempted to kill init!`), ends: endPanic, fatal: true},
	{kind: NoInit, has: "Kernel panic", shape: shape(`Kernel panic - not syncing: (?:No (?:working )?init found|Requested init )`), ends: endPanic, fatal: true},
	{kind: NoRoot, has: "Kernel panic", shape: shape(`Kernel panic - not syncing: VFS: Unable to mount root`), ends: endPanic, fatal: true},
	{kind: OutOfMemory, has: "Kernel panic", shape: shape(`Kernel panic - not syncing: (?:Out of memory|System is deadlocked on memory)`), ends: endPanic, fatal: true},
	{kind: KernelPanic, has: "Kernel panic", shape: shape(`Kernel panic - not syncing`), ends: endPanic, fatal: true},

	// init/do_mounts.c; then what initramfs-tools, dracut and mkinitcpio say
	{kind: NoRoot, has: "VFS: ", shape: shape(`VFS: (?:Cannot open root device|Unable to mount root fs)`)},
	{kind: NoRoot, has: "root", shape: shape(`Gave up waiting for root (?:file system )?device|ERROR: (?:Failed to mount the real root device|Unable to find root device)`)},
	{kind: NoRoot, has: "does not exist", shape: shape(`ALERT! +\S+ does not exist\. +Dropping to a shell!|dracut[\w-]*\[\d+\]: Warning: "?/dev/\S+ does not exist`)},

	// mm/oom_kill.c
	{kind: OutOfMemory, has: "invoked oom-killer: ", shape: shape(`.{0,15} invoked oom-killer: gfp_mask=`), ends: oomKilled},
	{kind: OutOfMemory, has: "ut of memory", shape: shape(`(?:Out of memory|Memory cgroup out of memory)(?: \(\w+\))?: Kill(?:ed)? process \d+`), ends: oomKilled},

	// mm/kasan/report.c, kernel/kcsan/report.c, mm/kmsan/report.c, mm/kfence/report.c,
	// lib/ubsan.c, mm/kmemleak.c
	{kind: KASAN, has: "KASAN: ", shape: shape(`BUG: KASAN: `), ends: equals},
	{kind: KCSAN, has: "KCSAN: ", shape: shape(`BUG: KCSAN: `), ends: equals},
	{kind: KMSAN, has: "KMSAN: ", shape: shape(`BUG: KMSAN: `), ends: equals},
	{kind: KFENCE, has: "KFENCE: ", shape: shape(`BUG: KFENCE: `), ends: equals},
	{kind: UBSAN, has: "UBSAN: ", shape: shape(`UBSAN: .+ in \S+:\d+`), ends: equals},
	{kind: Kmemleak, has: "kmemleak: ", shape: shape(`kmemleak: \d+ new suspected memory leaks`)},
	{kind: Kmemleak, has: "unreferenced object ", shape: shape(`unreferenced object 0x[0-9a-f]+ \(size \d+\):`)},
	{kind: Kmemleak, has: "BUG: memory leak", shape: shape(`BUG: memory leak$`)},

	// kernel/watchdog.c, kernel/rcu/tree_stall.h and tasks.h, kernel/hung_task.c, kernel/workqueue.c
	{kind: SoftLockup, has: "soft lockup", shape: shape(`(?:NMI )?(?:watchdog: )?BUG: soft lockup - CPU#\d+ stuck for `)},
	{kind: HardLockup, has: "hard LOCKUP", shape: shape(`(?:NMI )?watchdog: (?:CPU\d+: )?Watchdog detected hard LOCKUP on cpu \d+`)},
	{kind: RCUStall, has: "INFO: rcu", shape: shape(`(?:rcu[\w-]*: )?INFO: rcu\w* (?:self-)?detected (?:expedited )?stalls? on `)},
	{kind: HungTask, has: "INFO: task ", shape: shape(`INFO: task .+:\d+ blocked (?:in I/O wait )?for more than \d+ seconds`)},
	{kind: WorkqueueLockup, has: "workqueue lockup", shape: shape(`BUG: workqueue lockup - pool`)},

	// kernel/locking/lockdep.c; before Linux 4.14 in brackets
	{kind: Lockdep, has: "WARNING: ", shape: shape(`WARNING: (?:possible (?:circular locking dependency|recursive locking|irq lock inversion dependency) detected` +
		`|inconsistent lock state|\S+-safe -> \S+-unsafe lock order detected|bad (?:unlock balance|contention) detected!|held lock freed!` +
		`|lock held when returning to user space!|suspicious RCU usage|[Nn]ested lock was not taken)`)},
	{kind: Lockdep, has: "[ ", shape: shape(`\[ (?:BUG|INFO): (?:possible |suspicious |inconsistent |bad |held |lock |Invalid wait |\S+-safe ).+ \]$`)},
	{kind: Lockdep, has: "INFO: trying to register non-static key", shape: shape(`INFO: trying to register non-static key`)},
	{kind: Lockdep, has: "BUG: MAX_", shape: shape(`BUG: MAX_(?:LOCKDEP|LOCK|STACK_TRACE)\w* too low!`)},

	// kernel/sched/core.c, lib/smp_processor_id.c
	{kind: AtomicSleep, has: "BUG: ", shape: shape(`BUG: (?:scheduling while atomic: |sleeping function called from invalid context at |using \S+ in preemptible )`)},

	// kernel/panic.c; until Linux 6.18 the first form, with CPU and PID
	{kind: Refcount, has: "WARNING: ", shape: shape(`WARNING: (?:CPU: \d+ PID: \d+ at )?(?:lib/refcount\.c:\d+|(?:at )?refcount_\w+\+0x)`), ends: endTrace},
	{kind: Warning, has: "WARNING: ", shape: shape(`WARNING: (?:CPU: \d+ PID: \d+ at |(?:\S+:\d+ )?at \S.*, CPU#\d+: )`), ends: endTrace},
	{kind: Warning, has: "WARNING: kernel stack ", shape: shape(`WARNING: kernel stack (?:regs|frame pointer) at `)},

	// arch/x86/kernel/{dumpstack,traps}.c, arch/x86/mm/fault.c; lib/bug.c
	{kind: GPF, has: "general protection fault", shape: shape(`(?:Oops: )*general protection fault` + header), ends: endOops},
	{kind: Bug, has: "ernel BUG at ", shape: shape(`[kK]ernel BUG at \S`), ends: endOops, dies: true},
	{kind: Oops, has: "BUG: ", shape: shape(`BUG: (?:unable to handle |kernel NULL pointer dereference|(?:\w+ )?stack guard page was hit )`), ends: endOops, dies: true},
	{kind: Oops, has: "PANIC: ", shape: shape(`(?:traps: )?PANIC: (?:double fault|early exception)\b`), ends: endOops, dies: true},
	{kind: Oops, has: "Unable to handle kernel ", shape: shape(`Unable to handle kernel .+ at virtual address `), ends: endOops, dies: true},
	{kind: Oops, has: " [#", shape: shape(`(?:Oops|Internal error|divide error|int3|overflow|bounds|invalid opcode|device not available|double fault|coprocessor segment overrun` +
		`|invalid TSS|segment not present|stack segment|alignment check|control protection|stack guard page)` + header), ends: endOops},
	{kind: Oops, has: " [#", shape: shape(`[a-z][a-z0-9 _-]*` + header), ends: endOops, stamped: true},

	// mm/memory.c, mm/page_alloc.c, mm/slub.c, kernel/locking/spinlock_debug.c, fs/dcache.c
	{kind: Bug, has: "BUG: ", shape: shape(`BUG: (?:Bad (?:page|rss-counter|root page)|non-zero \w+ on freeing mm|(?:spinlock|rwlock|mutex) |Dentry |workqueue leaked )`)},
	{kind: Bug, has: "BUG ", shape: shape(`BUG [\w.:-]+ \((?:Not tainted|Tainted: .+)\): \S`)},
	{kind: Bug, has: "BUG: ", shape: shape(`BUG: \S`), stamped: true},
}

// find is the rule that text begins with, nil if there is none.
func find(text string, stamped bool) *rule {
	for i := range rules {
		r := &rules[i]
		if (stamped || !r.stamped) && strings.Contains(text, r.has) && r.shape.MatchString(text) {
			return r
		}
	}
	return nil
}

// cutHere opens the reports of kernel/panic.c, lib/bug.c and, since Linux 5.9, lib/ubsan.c.
const cutHere = "------------[ cut here ]------------"

// isEquals tells a line of "=" that opens and ends reports.
func isEquals(text string) bool {
	return len(text) >= 20 && strings.Trim(text, "=") == ""
}

var (
	diedLine = regexp.MustCompile(`^` + header)
	oomLine  = regexp.MustCompile(`Kill(?:ed)? process \d+`)
	// dumpLine is a line that belongs to a report: what a dump indents, and what its
	// lines begin with.
	dumpLine = regexp.MustCompile(`^(?:$|[ \t]|=====|-----|---\[|->|>?[0-9a-f]{8,16}:` +
		`|Call [Tt]race|CPU: |CPU#|CPUs? |Hardware name:|Modules linked in|Unloaded tainted|Workqueue:|Code:|Stack:|Kernel Offset|Dumping ftrace|note: |PKRU:` +
		`|(?:[ER][A-Z0-9]{1,3}|R\d\d|[C-GS]S|CR\d|DR\d):|#PF|PGD |BUG: |INFO: |WARNING: |Oops|KASAN: |RIP |EIP|irq event|(?:hard|soft)irqs last|Last potentially` +
		`|NMI |Sending NMI|rcu|task:|Task dump|Showing |Mem-Info|Node |[a-z_]+:\d|lowmem_reserve|active_|\d+ |Swap |Free swap|Total swap|\[ +pid|\[ *\d+\]|Tasks state|oom-kill|oom_reaper` +
		`|Out of memory|Memory cgroup|(?:Read|Write) (?:of|at)|(?:Allocated|Freed|Reported|allocated|freed) (?:by|in)|The buggy|page:|raw:|flags:|page_type|page dumped|head:|Memory state` +
		`|(?:read|write|race)\b|value changed|but task|which lock|the existing|other info|stack backtrace|Possible|\*\*\*|Disabling lock|kworker|kfence-|comm |backtrace|hex dump|Uninit|Local variable|Bytes` +
		`|"echo 0|Preemption disabled|preempt_count|in_atomic|Future hung|Kernel panic|Rebooting in|pool |workqueue |Object |Slab |Redzone |Padding |FIX |addr:|file:|List of all|[0-9a-f]{4} )` +
		`|\+0x[0-9a-f]+/0x[0-9a-f]+`)
)
