package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// helpColumns is the width that help texts are wrapped to.
const helpColumns = 90

func helpVerb() verb {
	return verb{
		name:  "help",
		args:  "[VERB]",
		short: "explain husk, or one of its verbs",
		define: func(*pflag.FlagSet) runner {
			return runHelp
		},
	}
}

func runHelp(_ context.Context, e *env, args []string) (int, error) {
	if len(args) == 0 {
		_, err := fmt.Fprint(e.stdout, overview())
		return exitOK, err
	}
	v, ok := findVerb(args[0])
	if !ok {
		return 0, fmt.Errorf("no verb %q%s; see husk help", args[0], didYouMean(args[0]))
	}
	_, err := fmt.Fprint(e.stdout, v.help())
	return exitOK, err
}

// overview is what husk says about itself as a whole.
func overview() string {
	var b strings.Builder
	b.WriteString("husk boots Linux kernels as virtual machines.\n\nUsage: husk VERB [flags] [arguments]\n\n")
	for _, v := range verbs() {
		if !v.hidden {
			fmt.Fprintf(&b, "  %-10s %s\n", v.name, v.short)
		}
	}
	b.WriteString("\nhusk help VERB explains a verb.\n")
	return b.String()
}

// help is the whole help text of a verb.
func (v verb) help() string {
	var b strings.Builder
	fmt.Fprintf(&b, "husk %s: %s\n\nUsage: %s\n", v.name, v.short, v.usage())
	if v.long != "" {
		fmt.Fprintf(&b, "\n%s\n", v.long)
	}
	fs, _ := v.flags()
	if fs.HasAvailableFlags() {
		for _, g := range groups(fs) {
			fmt.Fprintf(&b, "\n%s:\n%s", g.title, g.flags.FlagUsagesWrapped(helpColumns))
		}
	}
	if v.examples != "" {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", indent(v.examples))
	}
	return b.String()
}

// groupTitle is the annotation of a flag with which a group of them begins in the help.
const groupTitle = "group"

// startGroup has the help put a title in front of a flag.
func startGroup(fs *pflag.FlagSet, flag, title string) {
	_ = fs.SetAnnotation(flag, groupTitle, []string{title})
}

// A group is flags under a title.
type group struct {
	title string
	flags *pflag.FlagSet
}

// groups are a verb's flags as the help shows them.
func groups(fs *pflag.FlagSet) (list []group) {
	fs.VisitAll(func(flag *pflag.Flag) {
		title := flag.Annotations[groupTitle]
		if len(list) == 0 && title == nil {
			title = []string{"Flags"}
		}
		if title != nil {
			flags := pflag.NewFlagSet("", pflag.ContinueOnError)
			flags.SortFlags = fs.SortFlags
			list = append(list, group{title[0], flags})
		}
		list[len(list)-1].flags.AddFlag(flag)
	})
	return list
}

// usage is the line that shows how the verb is called.
func (v verb) usage() string {
	return strings.TrimSpace("husk " + v.name + " " + v.args)
}

// indent puts two blanks before each line of s.
func indent(s string) string {
	return "  " + strings.ReplaceAll(s, "\n", "\n  ")
}
