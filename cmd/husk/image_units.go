package main

import (
	"fmt"
	"time"
)

// humanSize is a number of bytes as Docker shows it: three digits, powers of 1000.
func humanSize(n int64) string {
	size := float64(n)
	for _, unit := range []string{"B", "kB", "MB", "GB", "TB"} {
		if size < 999.5 {
			return fmt.Sprintf("%.3g%s", size, unit)
		}
		size /= 1000
	}
	return fmt.Sprintf("%.3gPB", size)
}

// humanAge is how long ago something was, as Docker shows it.
func humanAge(d time.Duration) string {
	hours := int(d.Hours() + 0.5)
	switch {
	case d < time.Second:
		return "Less than a second ago"
	case d < 2*time.Second:
		return "1 second ago"
	case d < time.Minute:
		return fmt.Sprintf("%d seconds ago", int(d.Seconds()))
	case d < 2*time.Minute:
		return "About a minute ago"
	case d < time.Hour:
		return fmt.Sprintf("%d minutes ago", int(d.Minutes()))
	case hours == 1:
		return "About an hour ago"
	case hours < 48:
		return fmt.Sprintf("%d hours ago", hours)
	case hours < 24*14:
		return fmt.Sprintf("%d days ago", hours/24)
	case hours < 24*60:
		return fmt.Sprintf("%d weeks ago", hours/24/7)
	case hours < 24*365*2:
		return fmt.Sprintf("%d months ago", hours/24/30)
	}
	return fmt.Sprintf("%d years ago", hours/24/365)
}
