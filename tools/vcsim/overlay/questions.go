// Questions that a VM asks and that block it until somebody answers.
package simulator

import (
	"strconv"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

type questionRule struct {
	rule
	Text    string
	Choices []string
	Default int32
}

var questionCount int

// ask puts the question to the VM; the channel is closed by its answer.
func ask(vm *VirtualMachine, r *questionRule) chan struct{} {
	answered := make(chan struct{})
	if vm == nil {
		close(answered)
		return answered
	}
	questionCount++
	q := &types.VirtualMachineQuestionInfo{Id: strconv.Itoa(questionCount), Text: r.Text}
	q.Choice.DefaultIndex = r.Default
	for i, label := range r.Choices {
		choice := &types.ElementDescription{Key: strconv.Itoa(i)}
		choice.Label, choice.Summary = label, label
		q.Choice.ChoiceInfo = append(q.Choice.ChoiceInfo, choice)
	}
	vadp.pending[vm.Self.Value+q.Id] = answered
	Map.Update(vm, []types.PropertyChange{
		{Name: "runtime.question", Val: q}, {Name: "summary.runtime.question", Val: q},
	})
	return answered
}

// AnswerVM takes one of the choices' keys.
func (vm *VirtualMachine) AnswerVM(req *types.AnswerVM) soap.HasFault {
	body := &methods.AnswerVMBody{}
	q := vm.Runtime.Question
	if q == nil || q.Id != req.QuestionId {
		body.Fault_ = Fault("", &types.InvalidArgument{InvalidProperty: "questionId"})
		return body
	}
	n, err := strconv.Atoi(req.AnswerChoice)
	if err != nil || n < 0 || n >= len(q.Choice.ChoiceInfo) {
		body.Fault_ = Fault("", &types.InvalidArgument{InvalidProperty: "answerChoice"})
		return body
	}
	moid := vm.Self.Value
	vadp.answered[moid] = append(vadp.answered[moid], req.AnswerChoice)
	Map.Update(vm, []types.PropertyChange{
		{Name: "runtime.question", Val: nil}, {Name: "summary.runtime.question", Val: nil},
	})
	close(vadp.pending[moid+q.Id])
	delete(vadp.pending, moid+q.Id)
	body.Res = &types.AnswerVMResponse{}
	return body
}
