// Command gitops tells what GitOps tools make of objects: reads one object of JSON a line from its standard input, and
// writes for each a line with the health that a Lua script in the shape of Argo CD's health checks gives it, and with the
// status that kstatus, which Flux uses, gives it.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// Longest line.
const lineBytesMax = 1 << 20

type verdict struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("name the file of the health check")
	}
	script, err := os.ReadFile(os.Args[1])
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, lineBytesMax)
	output := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var object map[string]any
		if err := json.Unmarshal(lines.Bytes(), &object); err != nil {
			return err
		}
		argo, err := health(string(script), object)
		if err != nil {
			return err
		}
		result, err := status.Compute(&unstructured.Unstructured{Object: whole(object).(map[string]any)})
		if err != nil {
			return err
		}
		flux := verdict{Status: result.Status.String(), Message: result.Message}
		if err := output.Encode(map[string]verdict{"argo": argo, "kstatus": flux}); err != nil {
			return err
		}
	}
	return lines.Err()
}

// health runs a check as Argo CD does: the global `obj`, the safe libraries alone, a table as the result.
func health(script string, object map[string]any) (verdict, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable, lua.StringLibName: lua.OpenString,
		lua.MathLibName: lua.OpenMath,
	} {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			return verdict{}, err
		}
	}
	state.SetGlobal("obj", value(state, object))
	if err := state.DoString(script); err != nil {
		return verdict{}, err
	}
	result, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return verdict{}, fmt.Errorf("the check answers no table")
	}
	return verdict{Status: field(result, "status"), Message: field(result, "message")}, nil
}

func field(table *lua.LTable, name string) string {
	if text, ok := table.RawGetString(name).(lua.LString); ok {
		return string(text)
	}
	return ""
}

func value(state *lua.LState, json any) lua.LValue {
	switch typed := json.(type) {
	case map[string]any:
		table := state.NewTable()
		for name, inner := range typed {
			table.RawSetString(name, value(state, inner))
		}
		return table
	case []any:
		table := state.NewTable()
		for _, inner := range typed {
			table.Append(value(state, inner))
		}
		return table
	case string:
		return lua.LString(typed)
	case float64:
		return lua.LNumber(typed)
	case bool:
		return lua.LBool(typed)
	default:
		return lua.LNil
	}
}

// whole turns numbers into integers, as the API's own decoder does.
func whole(json any) any {
	switch typed := json.(type) {
	case map[string]any:
		for name, inner := range typed {
			typed[name] = whole(inner)
		}
	case []any:
		for index, inner := range typed {
			typed[index] = whole(inner)
		}
	case float64:
		return int64(typed)
	}
	return json
}
