package admin

import (
	"net/http"
	"strings"

	"sidecar/internal/log"
)

const loggingUsage = `
usage: /logging?<name>=<level> (change single level)
usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)
usage: /logging?level=<level> (change all levels)
usage: /logging?group=<group_name>:<level> (change group of loggers)
levels: trace debug info warning error critical off 
`

// serveLogging changes levels by at most one parameter, and lists them.
func (s *Server) serveLogging(r *request) answer {
	if err := s.setLevels(r.query); err != nil {
		return text(http.StatusBadRequest, "error: "+err.Error()+"\n"+loggingUsage+s.levels())
	}
	return text(http.StatusOK, s.levels())
}

func (s *Server) levels() string {
	var b strings.Builder
	b.WriteString("active loggers:\n")
	for _, c := range s.options.Logs.Levels() {
		b.WriteString("  " + c.Name + ": " + log.LevelName(c.Level) + "\n")
	}
	b.WriteString("\n")
	return b.String()
}

func (s *Server) setLevels(q query) error {
	switch {
	case len(q) == 0:
		return nil
	case len(q) > 1:
		return Error("invalid number of parameters")
	}
	name, value := q[0].name, q[0].value
	if value == "" {
		return nil // Envoy takes this for a question
	}
	switch name {
	case "group":
		return Error("group parameter requires fine-grain logging to be enabled")
	case "level":
		level, err := log.ParseLevel(value)
		if err != nil {
			return Error("unknown logger level")
		}
		s.options.Logs.SetLevel(level)
		return nil
	case "paths":
		return s.setPaths(value)
	}
	return s.setPaths(name + ":" + value)
}

// setPaths sets "name:level,name:level" as a whole or not at all.
func (s *Server) setPaths(list string) error {
	known := map[string]bool{}
	for _, c := range s.options.Logs.Levels() {
		known[c.Name] = true
	}
	changes := strings.Split(list, ",")
	for pass := range 2 {
		for _, change := range changes {
			name, value, found := strings.Cut(change, ":")
			level, err := log.ParseLevel(value)
			switch {
			case !found || name == "" || value == "":
				return Error("empty logger name or empty logger level")
			case err != nil:
				return Error("unknown logger level")
			case !known[name]:
				return Error("unknown logger name")
			case pass == 1:
				if err := s.options.Logs.SetComponentLevel(name, level); err != nil {
					return Error("unknown logger name")
				}
			}
		}
	}
	return nil
}
