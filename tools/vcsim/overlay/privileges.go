// Privileges: which one each call needs, and which ones a test has taken from the user.
package simulator

import (
	"github.com/vmware/govmomi/vim25/types"
)

var privileges = map[string]string{
	"AnswerVM":                   "VirtualMachine.Interact.AnswerQuestion",
	"ConsolidateVMDisks_Task":    "VirtualMachine.State.RemoveSnapshot",
	"CreateNasDatastore":         "Host.Config.Storage",
	"CreateSnapshotEx_Task":      "VirtualMachine.State.CreateSnapshot",
	"CreateSnapshot_Task":        "VirtualMachine.State.CreateSnapshot",
	"CreateVM_Task":              "VirtualMachine.Inventory.Create",
	"Destroy_Task":               "VirtualMachine.Inventory.Delete",
	"ExportSnapshot":             "VApp.Export",
	"ExportVm":                   "VApp.Export",
	"GET /folder":                "Datastore.Browse",
	"ImportVApp":                 "VApp.Import",
	"ListProcessesInGuest":       "VirtualMachine.GuestOperations.Query",
	"MigrateVM_Task":             "Resource.HotMigrate",
	"PUT /folder":                "Datastore.FileManagement",
	"PowerOffVM_Task":            "VirtualMachine.Interact.PowerOff",
	"PowerOnVM_Task":             "VirtualMachine.Interact.PowerOn",
	"QueryChangedDiskAreas":      "VirtualMachine.Provisioning.DiskRandomRead",
	"RegisterVM_Task":            "VirtualMachine.Inventory.Register",
	"RelocateVM_Task":            "Resource.HotMigrate",
	"RemoveAllSnapshots_Task":    "VirtualMachine.State.RemoveSnapshot",
	"RemoveDatastore":            "Host.Config.Storage",
	"RemoveSnapshot_Task":        "VirtualMachine.State.RemoveSnapshot",
	"RevertToSnapshot_Task":      "VirtualMachine.State.RevertToSnapshot",
	"SearchDatastore_Task":       "Datastore.Browse",
	"StartProgramInGuest":        "VirtualMachine.GuestOperations.Execute",
	"UnregisterVM":               "VirtualMachine.Inventory.Unregister",
	"ValidateCredentialsInGuest": "VirtualMachine.GuestOperations.Query",
}

// refusal is the fault of a call that needs what the user may not do.
func refusal(method *Method) types.BaseMethodFault {
	for _, privilege := range needed(method) {
		if !vadpGranted(privilege) {
			fault := new(types.NoPermission)
			fault.Object, fault.PrivilegeId = method.This, privilege
			return fault
		}
	}
	return nil
}

func needed(method *Method) []string {
	if b, ok := method.Body.(*types.ReconfigVM_Task); ok {
		return neededToReconfigure(&b.Spec)
	}
	if privilege, ok := privileges[method.Name]; ok {
		return []string{privilege}
	}
	return nil
}

func neededToReconfigure(spec *types.VirtualMachineConfigSpec) []string {
	var res []string
	if spec.ChangeTrackingEnabled != nil {
		res = append(res, "VirtualMachine.Config.ChangeTracking")
	}
	for _, change := range spec.DeviceChange {
		c := change.GetVirtualDeviceConfigSpec()
		if _, ok := c.Device.(*types.VirtualDisk); !ok {
			continue
		}
		switch {
		case c.Operation == types.VirtualDeviceConfigSpecOperationRemove:
			res = append(res, "VirtualMachine.Config.RemoveDisk")
		case c.Operation == types.VirtualDeviceConfigSpecOperationEdit:
			res = append(res, "VirtualMachine.Config.DiskExtend")
		case c.FileOperation == "":
			res = append(res, "VirtualMachine.Config.AddExistingDisk")
		default:
			res = append(res, "VirtualMachine.Config.AddNewDisk")
		}
	}
	return res
}

// vadpGranted is asked by the stock AuthorizationManager too.
func vadpGranted(privilege string) bool { return !vadp.refused[privilege] }

func vadpAllGranted(all []string) []string {
	var res []string
	for _, p := range all {
		if vadpGranted(p) {
			res = append(res, p)
		}
	}
	return res
}
